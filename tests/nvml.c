/* NVIDIA's management library for GPUs that are not there, as the package nvidia-ml-py calls it.
 *
 * The file NVML_GPUS describes one GPU a line, and is read at every call:
 *
 *     UUID WATTS FREE_BYTES CLOCK_MHZ UNCORRECTED_ERRORS BUSY_PERCENT
 *
 * A negative number: the GPU does not have that sensor.  Its energy counter runs with the monotonic clock.
 *
 * The folder NVML_PROCESSES has a file for every process that holds memory of a GPU, named after it: the number
 * of bytes. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { SUCCESS = 0, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7, GPU_IS_LOST = 15 };

typedef struct { unsigned long long total, free, used; } memory_t;
typedef struct { unsigned long long at; union { unsigned percent; unsigned long long all; } value; } sample_t;
typedef struct { unsigned pid; unsigned long long bytes; unsigned instance, part; } process_t;
typedef struct {
    char uuid[96];
    double watts;
    long long free_bytes;
    int clock_mhz;
    long long errors;
    int busy_percent;
} gpu_t;

static int gpu_at(long index, gpu_t *gpu) {
    const char *path = getenv("NVML_GPUS");
    FILE *file = path ? fopen(path, "r") : NULL;
    int found = 0;
    if (!file) return GPU_IS_LOST;
    for (long line = 0; !found && line <= index; line++) {
        int fields = fscanf(file, "%95s %lf %lld %d %lld %d", gpu->uuid, &gpu->watts, &gpu->free_bytes,
                            &gpu->clock_mhz, &gpu->errors, &gpu->busy_percent);
        if (fields != 6) break;
        found = line == index;
    }
    fclose(file);
    return found ? SUCCESS : GPU_IS_LOST;
}

int nvmlInitWithFlags(unsigned flags) { (void)flags; return SUCCESS; }
int nvmlShutdown(void) { return SUCCESS; }
const char *nvmlErrorString(int result) { (void)result; return "as described in nvml.c"; }

int nvmlDeviceGetHandleByUUID(const char *uuid, void **device) {
    gpu_t gpu;
    for (long index = 0; gpu_at(index, &gpu) == SUCCESS; index++)
        if (!strcmp(gpu.uuid, uuid)) {
            *device = (void *)(index + 1);
            return SUCCESS;
        }
    return NOT_FOUND;
}

int nvmlDeviceGetTotalEnergyConsumption(void *device, unsigned long long *energy_mj) {
    gpu_t gpu;
    struct timespec now;
    int result = gpu_at((long)device - 1, &gpu);
    if (result != SUCCESS) return result;
    if (gpu.watts < 0) return NOT_SUPPORTED;
    clock_gettime(CLOCK_MONOTONIC, &now);
    *energy_mj = gpu.watts * (1e3 * now.tv_sec + 1e-6 * now.tv_nsec);
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo(void *device, memory_t *memory) {
    gpu_t gpu;
    int result = gpu_at((long)device - 1, &gpu);
    if (result != SUCCESS) return result;
    if (gpu.free_bytes < 0) return NOT_SUPPORTED;
    memory->total = gpu.free_bytes + (1ull << 30);
    memory->free = gpu.free_bytes;
    memory->used = 1ull << 30;
    return SUCCESS;
}

int nvmlDeviceGetClockInfo(void *device, int type, unsigned *clock_mhz) {
    gpu_t gpu;
    int result = gpu_at((long)device - 1, &gpu);
    if (result != SUCCESS) return result;
    if (gpu.clock_mhz < 0 || type != 1) return NOT_SUPPORTED;
    *clock_mhz = gpu.clock_mhz;
    return SUCCESS;
}

int nvmlDeviceGetTotalEccErrors(void *device, int error, int counter, unsigned long long *count) {
    gpu_t gpu;
    int result = gpu_at((long)device - 1, &gpu);
    if (result != SUCCESS) return result;
    if (gpu.errors < 0 || error != 1 || counter != 0) return NOT_SUPPORTED;
    *count = gpu.errors;
    return SUCCESS;
}

int nvmlDeviceGetSamples(void *device, int type, unsigned long long since, int *value_type, unsigned *count,
                         sample_t *samples) {
    gpu_t gpu;
    int result = gpu_at((long)device - 1, &gpu);
    if (result != SUCCESS) return result;
    if (gpu.busy_percent < 0 || type != 1) return NOT_SUPPORTED;
    *value_type = 1;
    *count = 2;
    for (unsigned n = 0; samples && n < *count; n++)
        samples[n] = (sample_t){ .at = since + n, .value.percent = gpu.busy_percent - 1 + 2 * n };
    return SUCCESS;
}

int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *count, process_t *processes) {
    const char *path = getenv("NVML_PROCESSES");
    DIR *folder = path ? opendir(path) : NULL;
    unsigned found = 0;
    (void)device;
    for (struct dirent *entry; folder && (entry = readdir(folder));) {
        char name[512];
        unsigned long long bytes;
        FILE *file;
        if (atoi(entry->d_name) <= 0) continue;
        snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
        if (!(file = fopen(name, "r"))) continue;
        if (fscanf(file, "%llu", &bytes) == 1) {
            if (processes && found < *count)
                processes[found] = (process_t){ .pid = atoi(entry->d_name), .bytes = bytes };
            found++;
        }
        fclose(file);
    }
    if (folder) closedir(folder);
    if (found > *count) {
        *count = found;
        return INSUFFICIENT_SIZE;
    }
    *count = found;
    return SUCCESS;
}
