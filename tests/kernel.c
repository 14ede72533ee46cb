/* Simulates a kernel on which some processes cannot be killed, or fork fails; switchable, without root.
 *
 * Loaded with LD_PRELOAD.  KERNEL_FOLDER is a folder in which
 *
 *     stuck      holds process ids, one per line: no signal reaches them, as inside a driver that hangs
 *     full       holds an errno, with which fork() fails while the file exists
 *     refused    gets one byte per failed fork
 *
 * The files are read at every call, so that they can change while processes run.
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

/* A wrapper cannot return twice on the stack of its caller; a copy of the process does no harm. */
pid_t vfork(void) { return fork(); }
