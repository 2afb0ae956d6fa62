"""All tests run on the CPU: they compare more closely than a GPU computes that multiplies in TF32."""
import os

os.environ['CUDA_VISIBLE_DEVICES'] = ''  # before TensorFlow is loaded
