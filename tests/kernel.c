/* A kernel that cannot end some processes, and has no process to give, at any moment and without root.
 *
 * Loaded with LD_PRELOAD.  KERNEL_FOLDER is a folder in which
 *
 *     stuck      holds numbers of processes, one a line: no signal reaches them, as inside a driver that hangs
 *     full       holds an errno, with which fork() fails while the file is there
 *     refused    gets a byte for each fork that has failed
 *
 * The files are looked up at every call, so that they can change under processes that run.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/types.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static FILE *file_in_folder(const char *name, const char *mode) {
    char path[4096];
    const char *folder = getenv("KERNEL_FOLDER");
    if (!folder) return NULL;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return fopen(path, mode);
}

static int is_stuck(pid_t process) {
    long found;
    int is_there = 0;
    FILE *file = file_in_folder("stuck", "re");
    if (!file) return 0;
    while (fscanf(file, "%ld", &found) == 1) is_there |= found == process;
    fclose(file);
    return is_there;
}

int kill(pid_t process, int number) {
    if (number && process > 0 && is_stuck(process)) return 0;
    return REAL(kill)(process, number);
}

int killpg(pid_t group, int number) {
    if (number && is_stuck(group)) return 0;
    return REAL(killpg)(group, number);
}

pid_t fork(void) {
    int number = 0;
    FILE *file = file_in_folder("full", "re");
    if (file) {
        if (fscanf(file, "%d", &number) != 1) number = 0;
        fclose(file);
    }
    if (!number) return REAL(fork)();
    file = file_in_folder("refused", "ae");
    if (file) {
        fputc('x', file);
        fclose(file);
    }
    errno = number;
    return -1;
}
