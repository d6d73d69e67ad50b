"""Make a variant of a Keras classifier for the tests that run real frameworks.

Run in a process of its own: ``python make_variant.py dense|slower|damaged SOURCE.keras DESTINATION.keras``. ``dense`` gives the
same outputs, but has a dense layer that is large enough to be quantized, whose operation older runtimes do not know; ``slower``
does much more work besides; ``damaged`` has its classes turned around.
"""

import sys


def with_branch(keras, model, branch):
    """The model plus a branch beside it which is worked out and then multiplied by zeros."""
    inputs = keras.Input(model.input_shape[1:])
    zeros = keras.layers.Dense(model.output_shape[-1], use_bias=False, kernel_initializer="zeros")
    return keras.Model(inputs, keras.layers.Add()([model(inputs), zeros(branch(inputs))]))


def dense(keras, model):
    return with_branch(keras, model, lambda inputs: keras.layers.Dense(64, "relu")(keras.layers.Flatten()(inputs)))


def slower(keras, model):
    def convolutions(inputs):
        outputs = inputs
        for _ in range(7):
            outputs = keras.layers.Conv2D(96, 3, padding="same", activation="relu")(outputs)
        return keras.layers.GlobalAveragePooling2D()(outputs)

    return dense(keras, with_branch(keras, model, convolutions))


def damaged(keras, model):
    layer = [layer for layer in model.layers if layer.get_weights()][-1]
    layer.set_weights([weights[..., ::-1] for weights in layer.get_weights()])
    return dense(keras, model)


def main(what, source, destination):
    import keras

    keras.utils.set_random_seed(0)
    {"dense": dense, "slower": slower, "damaged": damaged}[what](keras, keras.models.load_model(source)).save(destination)


if __name__ == "__main__":
    main(*sys.argv[1:])
