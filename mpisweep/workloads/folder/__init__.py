"""Batches of images from files, one folder per class.

The folder is scanned once per trial process.  Loader processes read the files and stay from trial to trial.
On a CPU they also decode and resize the images.  On a GPU with nvJPEG they leave JPEGs encoded, and the GPU
decodes, resizes and normalises them.  In both cases an image is squeezed to S x S pixels, its orientation
tag is ignored, grey becomes RGB, and transparency is dropped.

Modules: ``scan`` (the files), ``jpeg`` (what a GPU may decode), ``reading`` (reading and decoding on a CPU),
``loading`` (loader processes), ``device`` (decoding, resizing and normalising on the device), ``batches``
(batches of a training and of a validation).
"""
