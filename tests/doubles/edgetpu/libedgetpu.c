/* A stand-in for libedgetpu: a TensorFlow Lite delegate that takes the custom operators of a compiled model, as the real one does.
 *
 * It checks options, devices and runtime versions with the words of the real library. What a part of the model computes it leaves to
 * simulated_edge_tpu.py, which runs the part's own operators in a second interpreter.
 *
 * The structures are those of TensorFlow Lite's C interface, as far as they are used here; their layout has not changed since 2.3.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OK = 0, ERROR = 1, ALLOW_DYNAMIC_TENSORS = 1 };
#define MOST_TENSORS 16

struct Context;

typedef struct {
    int size;
    int data[];
} IntArray;

typedef struct Delegate {
    void *data;
    int (*prepare)(struct Context *, struct Delegate *);
    void *copy_from, *copy_to, *free_handle;
    int64_t flags;
    void *opaque_builder;
} Delegate;

typedef struct {
    int type;
    char *data;
    IntArray *dims;
    float scale;
    int32_t zero_point;
    int allocation_type;
    size_t bytes;
    const void *allocation;
    const char *name;
    Delegate *delegate;
    int buffer_handle;
    bool data_is_stale, is_variable;
    int quantization_type;
    void *quantization_params;
    void *sparsity;
    const IntArray *dims_signature;
} Tensor;

typedef struct {
    IntArray *inputs, *outputs, *intermediates, *temporaries;
    void *user_data, *builtin_data;
    const void *custom_initial_data;
    int custom_initial_data_size;
    Delegate *delegate;
    bool might_have_side_effect;
} Node;

typedef struct Registration {
    void *(*init)(struct Context *, const char *, size_t);
    void (*free)(struct Context *, void *);
    int (*prepare)(struct Context *, Node *);
    int (*invoke)(struct Context *, Node *);
    const char *(*profiling_string)(const struct Context *, const Node *);
    int32_t builtin_code;
    const char *custom_name;
    int version;
    void *later[6]; /* what newer releases added, and room for more: it is passed by value */
} Registration;

typedef struct Context {
    size_t tensors_size;
    int (*get_execution_plan)(struct Context *, IntArray **);
    Tensor *tensors;
    void *implementation;
    int (*resize_tensor)(struct Context *, Tensor *, IntArray *);
    void (*report_error)(struct Context *, const char *, ...);
    int (*add_tensors)(struct Context *, int, int *);
    int (*get_node_and_registration)(struct Context *, int, Node **, Registration **);
    int (*replace_nodes)(struct Context *, Registration, const IntArray *, Delegate *);
} Context;

typedef struct {
    Delegate *delegate;
    IntArray *nodes_to_replace, *input_tensors, *output_tensors;
} DelegateParams;

/* The head of what the stand-in of the compiler puts into a custom operator; the part of the model follows. */
typedef struct {
    char magic[8];
    uint32_t runtime_version;
    uint32_t size;
} Package;

typedef struct {
    const Package *package;
    int chip; /* the number that the simulation gave to this part */
} Kernel;

/* Filled in by simulated_edge_tpu.py. */
static struct {
    int (*open)(const char *content, size_t size);
    int (*run)(int chip, char **inputs, size_t *input_bytes, int input_count, char **outputs, size_t *output_bytes, int output_count);
} simulation;

extern int PyRun_SimpleString(const char *); /* of the interpreter that has loaded this library */

static const char *setting(const char *name, const char *otherwise) {
    const char *value = getenv(name);
    return value ? value : otherwise;
}

static unsigned runtime_version(void) { return (unsigned)atoi(setting("DOUBLE_EDGETPU_RUNTIME", "14")); }

const char *edgetpu_version(void) {
    static char text[128];
    snprintf(text, sizeof text, "BuildLabel(COMPILER=stand-in,DATE=redacted,TIME=redacted), RuntimeVersion(%u)", runtime_version());
    return text;
}

static void *kernel_init(Context *context, const char *buffer, size_t length) {
    const DelegateParams *params = (const DelegateParams *)buffer;
    Kernel *kernel = calloc(1, sizeof *kernel);
    Node *node;
    Registration *registration;
    (void)length;
    kernel->chip = -1;
    if (context->get_node_and_registration(context, params->nodes_to_replace->data[0], &node, &registration) == OK
        && (size_t)node->custom_initial_data_size >= sizeof(Package))
        kernel->package = node->custom_initial_data;
    return kernel;
}

static void kernel_free(Context *context, void *kernel) {
    (void)context;
    free(kernel);
}

static int kernel_prepare(Context *context, Node *node) {
    Kernel *kernel = node->user_data;
    const Package *package = kernel->package;
    if (*setting("DOUBLE_EDGETPU_MISMATCH", "")) {
        context->report_error(context, "Internal: Unsupported data type in custom op handler: 0");
        return ERROR;
    }
    if (!package || memcmp(package->magic, "STAND-IN", 8) != 0) {
        context->report_error(context, "Failed to prepare for TPU. Invalid argument: package is not one of the stand-in compiler's.");
        return ERROR;
    }
    if (package->runtime_version > runtime_version()) {
        context->report_error(context,
                              "Failed to prepare for TPU. Failed precondition: Package requires runtime version (%d), which is newer "
                              "than this runtime version (%d).",
                              (int)package->runtime_version, (int)runtime_version());
        return ERROR;
    }
    if (kernel->chip < 0)
        kernel->chip = simulation.open((const char *)(package + 1), package->size);
    return kernel->chip < 0 ? ERROR : OK;
}

static int kernel_invoke(Context *context, Node *node) {
    Kernel *kernel = node->user_data;
    char *inputs[MOST_TENSORS], *outputs[MOST_TENSORS];
    size_t input_bytes[MOST_TENSORS], output_bytes[MOST_TENSORS];
    int i, input_count = 0;
    for (i = 0; i < node->inputs->size && input_count < MOST_TENSORS; ++i) {
        Tensor *tensor = &context->tensors[node->inputs->data[i]];
        inputs[input_count] = tensor->data;
        input_bytes[input_count++] = tensor->bytes;
    }
    for (i = 0; i < node->outputs->size && i < MOST_TENSORS; ++i) {
        outputs[i] = context->tensors[node->outputs->data[i]].data;
        output_bytes[i] = context->tensors[node->outputs->data[i]].bytes;
    }
    return simulation.run(kernel->chip, inputs, input_bytes, input_count, outputs, output_bytes, i) == 0 ? OK : ERROR;
}

static int delegate_prepare(Context *context, Delegate *delegate) {
    Registration registration = {0}, *of_node;
    IntArray *plan, *custom;
    Node *node;
    int i, status = OK;
    if (*setting("DOUBLE_EDGETPU_IDLE", ""))
        return OK; /* as with a runtime that no longer hands nodes over */
    if (context->get_execution_plan(context, &plan) != OK)
        return ERROR;
    custom = malloc(sizeof *custom + sizeof(int) * (size_t)plan->size);
    custom->size = 0;
    for (i = 0; i < plan->size; ++i)
        if (context->get_node_and_registration(context, plan->data[i], &node, &of_node) == OK && of_node->custom_name
            && strcmp(of_node->custom_name, "edgetpu-custom-op") == 0)
            custom->data[custom->size++] = plan->data[i];
    registration.init = kernel_init;
    registration.free = kernel_free;
    registration.prepare = kernel_prepare;
    registration.invoke = kernel_invoke;
    registration.custom_name = "EdgeTpuDelegateForCustomOp";
    registration.version = 1;
    for (i = 0; i < custom->size && status == OK; ++i) { /* each by itself, so that none are joined */
        struct {
            int size, data[1];
        } one = {1, {custom->data[i]}};
        status = context->replace_nodes(context, registration, (const IntArray *)&one, delegate);
    }
    free(custom);
    return status;
}

/* Whether a device of this kind ("usb" or "pci"; NULL for any) and of this place among them is attached. */
static bool is_attached(const char *kind, int index) {
    char list[128], *device;
    int found = 0;
    snprintf(list, sizeof list, "%s", setting("DOUBLE_EDGETPU_ATTACHED", "usb"));
    for (device = strtok(list, ","); device; device = strtok(NULL, ","))
        if ((!kind || strcmp(device, kind) == 0) && found++ == index)
            return true;
    return false;
}

static bool matches(const char *wish, const char *kind) {
    size_t length = strlen(kind);
    char *end;
    long index = 0;
    if (strncmp(wish, kind, length) != 0)
        return false;
    if (wish[length] == ':') {
        index = strtol(wish + length + 1, &end, 10);
        if (*end || end == wish + length + 1 || index < 0)
            return false;
    } else if (wish[length])
        return false;
    return is_attached(*kind ? kind : NULL, (int)index);
}

Delegate *tflite_plugin_create_delegate(char **keys, char **values, size_t count, void (*report)(const char *)) {
    const char *device = "";
    char command[128];
    Delegate *delegate;
    size_t i;
    (void)report; /* the real one says nothing either */
    for (i = 0; i < count; ++i)
        if (strcmp(keys[i], "device") == 0)
            device = values[i];
    if (!matches(device, "") && !matches(device, "usb") && !matches(device, "pci"))
        return NULL;
    snprintf(command, sizeof command, "import simulated_edge_tpu; simulated_edge_tpu.attach(%zu)", (size_t)&simulation);
    if (!simulation.open && PyRun_SimpleString(command) != 0)
        return NULL;
    delegate = calloc(1, sizeof *delegate);
    delegate->prepare = delegate_prepare;
    delegate->flags = ALLOW_DYNAMIC_TENSORS;
    return delegate;
}

void tflite_plugin_destroy_delegate(Delegate *delegate) { free(delegate); }
