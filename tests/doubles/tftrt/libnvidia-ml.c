/* NVIDIA's management library, as far as the agent asks it: how much memory the one device has. DOUBLE_FREE_BYTES says how much is free. */

#include <stdlib.h>

typedef struct { unsigned long long total, free, used; } memory_t;

int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }

int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void **device) {
    *device = (void *)1;
    return index == 0 ? 0 : 6; /* not found */
}

int nvmlDeviceGetHandleByPciBusId_v2(const char *address, void **device) {
    *device = (void *)1;
    return address[0] ? 0 : 6;
}

int nvmlDeviceGetMemoryInfo(void *device, memory_t *memory) {
    const char *told = getenv("DOUBLE_FREE_BYTES");
    memory->free = told ? strtoull(told, 0, 10) : 8ULL << 30;
    memory->total = 16ULL << 30;
    memory->used = memory->total - memory->free;
    return device ? 0 : 2;
}
