/* A stand-in for the CUDA driver's library: as much of it as tells what device there is. What it says comes from the environment, the
 * same variables that site/simulated_cuda.py reads. */

#include <stdlib.h>
#include <string.h>

static int number(const char *name, int otherwise) {
    const char *text = getenv(name);
    return text && *text ? atoi(text) : otherwise;
}

static const char *text(const char *name, const char *otherwise) {
    const char *found = getenv(name);
    return found && *found ? found : otherwise;
}

int cuInit(unsigned int flags) {
    (void)flags;
    return number("DOUBLE_CUINIT", 0);
}

int cuDeviceGetCount(int *count) {
    *count = number("DOUBLE_DEVICES", 1);
    return 0;
}

int cuDeviceGet(int *device, int ordinal) {
    if (ordinal >= number("DOUBLE_DEVICES", 1))
        return 101; /* CUDA_ERROR_INVALID_DEVICE */
    *device = ordinal;
    return 0;
}

int cuDeviceGetName(char *name, int length, int device) {
    (void)device;
    strncpy(name, text("DOUBLE_GPU", "Orin"), (size_t)length - 1);
    name[length - 1] = 0;
    return 0;
}

int cuDeviceGetAttribute(int *value, int attribute, int device) {
    const char *capability = text("DOUBLE_SM", "8.7");
    const char *dot = strchr(capability, '.');
    (void)device;
    if (attribute != 75 && attribute != 76)
        return 1; /* CUDA_ERROR_INVALID_VALUE */
    *value = attribute == 75 ? atoi(capability) : (dot ? atoi(dot + 1) : 0);
    return 0;
}

int cuDriverGetVersion(int *version) {
    *version = number("DOUBLE_DRIVER", 12060);
    return 0;
}
