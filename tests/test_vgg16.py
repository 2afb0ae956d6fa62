"""VGG-16 as a SavedModel, from the weights of Keras and with random ones."""
import os

from fcn8.tf1 import tf

import h5py
import numpy as np

import main
from fcn8.data import vgg16
from tests.support import Case


def new_keras_model():
    """Keras's VGG-16, dense at the top, with a few channels and random weights."""
    keras = tf.keras
    model = keras.Sequential([keras.layers.InputLayer(input_shape=(224, 224, 3))])
    for block, count in enumerate((2, 2, 3, 3, 3), start=1):
        for number in range(1, count + 1):
            model.add(keras.layers.Conv2D(4, 3, padding='same', activation='relu', name=f'block{block}_conv{number}'))
        model.add(keras.layers.MaxPooling2D(name=f'block{block}_pool'))
    model.add(keras.layers.Flatten(name='flatten'))
    for name, units in (('fc1', 6), ('fc2', 5)):
        model.add(keras.layers.Dense(units, activation='relu', name=name))
    random = np.random.RandomState(0)
    model.set_weights([random.normal(0.02, np.sqrt(2 / max(np.prod(weights.shape[:-1]), 50)), weights.shape)
                       for weights in model.get_weights()])
    return model


def write_weights(model, path):
    """Write the weights to a file like the public one."""
    with h5py.File(path, 'w') as file:
        for layer in model.layers:
            group = file.create_group(layer.name)
            for part, value in zip('Wb', layer.get_weights()):
                group[f'{layer.name}_{part}_1:0'] = value


class Vgg16(Case):
    def test_the_numbers_of_keras_and_files_without_them(self):
        picture = np.random.RandomState(0).uniform(0, 255, size=(1, 224, 224, 3)).astype(np.float32)
        model, weights_file = new_keras_model(), self.path('weights.h5')
        expected = model.predict(picture[..., ::-1] - np.array(vgg16.MEAN_BGR))
        write_weights(model, weights_file)
        vgg16.write_from_keras(self.path('vgg'), weights_file)
        with tf.Graph().as_default(), tf.Session() as sess:
            image_input, keep_prob, _, _, layer7_out = main.load_vgg(sess, self.path('vgg'))
            got = sess.run(layer7_out, {image_input: picture, keep_prob: 1})
        self.assertEqual(got.shape, (1, 7, 7, 5))
        self.assertTrue(expected.any())
        # In the middle the 7x7 window covers just the picture, as the dense layer does.
        np.testing.assert_allclose(got[:, 3, 3], expected, rtol=1e-4, atol=1e-4)

        with h5py.File(weights_file, 'r+') as file:
            del file['block3_conv2']
        with self.assertRaisesRegex(KeyError, 'block3_conv2'):
            vgg16.write_from_keras(self.path('other'), weights_file)
        with open(weights_file, 'w') as file:
            file.write('not HDF5')
        with self.assertRaises(OSError):
            vgg16.write_from_keras(self.path('other'), weights_file)
        self.assertNotIn('other', os.listdir(self.folder))

    def test_variables_with_names_of_the_decoder_are_refused(self):
        for name, refused in (('decoder/conv2d/kernel', True), ('conv1_1/decoder', False)):
            with self.subTest(name), tf.Graph().as_default(), tf.Session() as sess:
                sess.run(tf.get_variable(name, [1]).initializer)
                tf.train.Saver().save(sess, self.path('vgg', 'variables', 'variables'))
                if refused:
                    self.assertRegex(self.assert_user_error(vgg16.check_names, self.path('vgg')),
                                     'vgg: its variable decoder/conv2d/kernel .* without --freeze-encoder')
                else:
                    vgg16.check_names(self.path('vgg'))

    def test_slim_has_the_strides_of_vgg_16_and_dropout(self):
        with tf.Session() as sess:
            image_input, keep_prob, *outputs = main.load_vgg(sess, self.write_vgg())
            feed = {image_input: np.random.RandomState(0).uniform(0, 255, size=(2, 64, 96, 3))}
            plain = sess.run(outputs, {**feed, keep_prob: 1})
            dropped = sess.run(outputs, {**feed, keep_prob: 0.5})
        self.assertEqual([values.shape for values in plain], [(2, 8, 12, 4), (2, 4, 6, 8), (2, 2, 3, 64)])
        np.testing.assert_array_equal(plain[1], dropped[1])
        self.assertGreater((dropped[2] == 0).sum(), (plain[2] == 0).sum())
