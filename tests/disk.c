/* A disk that can fail, fill up, hang or slow down, for everything below one folder, at any moment, without root.
 *
 * Loaded with LD_PRELOAD.  DISK_FOLDER is the folder; the file DISK_STATE holds the state of the disk:
 *
 *     fine            works normally (also if the file is missing)
 *     hang            every call waits until the state changes
 *     slow SECONDS    every call waits for that long
 *     fail ERRNO      writing, syncing, creating, renaming fail
 *
 * Every call reads the state, so it can change while processes run.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

enum kind { READS, WRITES };

static int is_below(const char *path) {
    const char *folder = getenv("DISK_FOLDER");
    char absolute[4096];
    if (!folder || !path) return 0;
    if (path[0] != '/') {
        char here[2048];
        if (syscall(SYS_getcwd, here, sizeof here) < 0) return 0;
        snprintf(absolute, sizeof absolute, "%s/%s", here, path);
        path = absolute;
    }
    size_t length = strlen(folder);
    return strncmp(path, folder, length) == 0 && (path[length] == '/' || path[length] == 0);
}

static int is_below_file(int file) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    long length = syscall(SYS_readlinkat, AT_FDCWD, link, path, sizeof path - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    return is_below(path);
}

/* 0, or the errno with which the call must fail. */
static int passes(enum kind kind) {
    int waited = 0;
    for (;;) {
        char state[64] = "fine";
        const char *name = getenv("DISK_STATE");
        int file = name ? (int)syscall(SYS_openat, AT_FDCWD, name, O_RDONLY | O_CLOEXEC, 0) : -1;
        if (file >= 0) {
            long got = syscall(SYS_read, file, state, sizeof state - 1);
            state[got > 0 ? got : 0] = 0;
            syscall(SYS_close, file);
        }
        struct timespec pause = {0, 20 * 1000 * 1000};
        if (strncmp(state, "fail ", 5) == 0) return kind == WRITES ? atoi(state + 5) : 0;
        if (strncmp(state, "slow ", 5) == 0 && !waited) {
            double seconds = atof(state + 5);
            pause.tv_sec = (time_t)seconds;
            pause.tv_nsec = (long)((seconds - (double)pause.tv_sec) * 1e9);
            waited = 1;
            nanosleep(&pause, NULL);
            continue;
        }
        if (strncmp(state, "hang", 4) != 0) return 0;
        nanosleep(&pause, NULL);
    }
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define GUARD(below, kind) \
    do { \
        if (below) { \
            int number = passes(kind); \
            if (number) { errno = number; return -1; } \
        } \
    } while (0)

static enum kind kind_of(int flags) { return (flags & O_ACCMODE) == O_RDONLY ? READS : WRITES; }

int open(const char *path, int flags, ...) {
    va_list rest; va_start(rest, flags); mode_t mode = va_arg(rest, mode_t); va_end(rest);
    GUARD(is_below(path), kind_of(flags));
    return REAL(open)(path, flags, mode);
}
int open64(const char *path, int flags, ...) {
    va_list rest; va_start(rest, flags); mode_t mode = va_arg(rest, mode_t); va_end(rest);
    GUARD(is_below(path), kind_of(flags));
    return REAL(open64)(path, flags, mode);
}
int openat(int folder, const char *path, int flags, ...) {
    va_list rest; va_start(rest, flags); mode_t mode = va_arg(rest, mode_t); va_end(rest);
    GUARD(folder == AT_FDCWD ? is_below(path) : is_below_file(folder), kind_of(flags));
    return REAL(openat)(folder, path, flags, mode);
}
int openat64(int folder, const char *path, int flags, ...) {
    va_list rest; va_start(rest, flags); mode_t mode = va_arg(rest, mode_t); va_end(rest);
    GUARD(folder == AT_FDCWD ? is_below(path) : is_below_file(folder), kind_of(flags));
    return REAL(openat64)(folder, path, flags, mode);
}
ssize_t write(int file, const void *data, size_t size) {
    GUARD(is_below_file(file), WRITES);
    return REAL(write)(file, data, size);
}
ssize_t pwrite64(int file, const void *data, size_t size, off64_t at) {
    GUARD(is_below_file(file), WRITES);
    return REAL(pwrite64)(file, data, size, at);
}
ssize_t pwrite(int file, const void *data, size_t size, off_t at) {
    GUARD(is_below_file(file), WRITES);
    return REAL(pwrite)(file, data, size, at);
}
ssize_t read(int file, void *data, size_t size) {
    GUARD(is_below_file(file), READS);
    return REAL(read)(file, data, size);
}
int fsync(int file) {
    GUARD(is_below_file(file), WRITES);
    return REAL(fsync)(file);
}
int rename(const char *old, const char *new) {
    GUARD(is_below(old) || is_below(new), WRITES);
    return REAL(rename)(old, new);
}
int renameat(int from, const char *old, int to, const char *new) {
    GUARD(is_below(old) || is_below(new), WRITES);
    return REAL(renameat)(from, old, to, new);
}
int link(const char *old, const char *new) {
    GUARD(is_below(old) || is_below(new), WRITES);
    return REAL(link)(old, new);
}
int linkat(int from, const char *old, int to, const char *new, int flags) {
    GUARD(is_below(old) || is_below(new), WRITES);
    return REAL(linkat)(from, old, to, new, flags);
}
int unlink(const char *path) {
    GUARD(is_below(path), WRITES);
    return REAL(unlink)(path);
}
int unlinkat(int folder, const char *path, int flags) {
    GUARD(folder == AT_FDCWD ? is_below(path) : is_below_file(folder), WRITES);
    return REAL(unlinkat)(folder, path, flags);
}
int mkdir(const char *path, mode_t mode) {
    GUARD(is_below(path), WRITES);
    return REAL(mkdir)(path, mode);
}
int rmdir(const char *path) {
    GUARD(is_below(path), WRITES);
    return REAL(rmdir)(path);
}
int utimensat(int folder, const char *path, const struct timespec times[2], int flags) {
    GUARD(is_below(path), WRITES);
    return REAL(utimensat)(folder, path, times, flags);
}
int stat(const char *path, struct stat *found) {
    GUARD(is_below(path), READS);
    return REAL(stat)(path, found);
}
int lstat(const char *path, struct stat *found) {
    GUARD(is_below(path), READS);
    return REAL(lstat)(path, found);
}
int stat64(const char *path, struct stat64 *found) {
    GUARD(is_below(path), READS);
    return REAL(stat64)(path, found);
}
int lstat64(const char *path, struct stat64 *found) {
    GUARD(is_below(path), READS);
    return REAL(lstat64)(path, found);
}
int fstatat(int folder, const char *path, struct stat *found, int flags) {
    GUARD(folder == AT_FDCWD && is_below(path), READS);
    return REAL(fstatat)(folder, path, found, flags);
}
int fstatat64(int folder, const char *path, struct stat64 *found, int flags) {
    GUARD(folder == AT_FDCWD && is_below(path), READS);
    return REAL(fstatat64)(folder, path, found, flags);
}
DIR *opendir(const char *path) {
    if (is_below(path)) passes(READS);
    return REAL(opendir)(path);
}
