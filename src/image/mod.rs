//! Images: content store, snapshotter, layers in and out, load, save and import.
