"""How the variables of a backbone are spread over a mesh of devices (JAX)."""

from __future__ import annotations

import keras


def layout_map(device_mesh, model_parallel_dim_name: str, data_parallel_dim_name: str):
    """A `keras.distribution.LayoutMap` for the variables of `LlamaBackbone`.

    Along the model axis, products into heads and into the feed-forward width are split by column and the products
    out of them by row, so that a block needs two reductions (Shoeybi et al. 2019, arXiv:1909.08053). The other axis
    of each matrix is spread over the data axis. Norms and adapters are replicated.

    Raises:
        ValueError: `device_mesh` is no `keras.distribution.DeviceMesh`, or has no axis of a given name.
    """
    if not isinstance(device_mesh, keras.distribution.DeviceMesh):
        raise ValueError(f"device_mesh={device_mesh!r} must be a keras.distribution.DeviceMesh.")
    model, data = model_parallel_dim_name, data_parallel_dim_name
    for argument, axis in (("model_parallel_dim_name", model), ("data_parallel_dim_name", data)):
        if axis not in device_mesh.axis_names:
            raise ValueError(f"{argument}={axis!r} is no axis of the mesh; it has {device_mesh.axis_names}.")
    layouts = keras.distribution.LayoutMap(device_mesh)
    layouts[r"token_embedding/embeddings$"] = (model, data)
    layouts[r"token_embedding/reverse_embeddings$"] = (data, model)
    layouts[r"transformer_layer_\d+/self_attention/(query|key|value)/kernel$"] = (data, model)
    layouts[r"transformer_layer_\d+/self_attention/attention_output/kernel$"] = (model, data)
    layouts[r"transformer_layer_\d+/feedforward_(intermediate|gate)_dense/kernel$"] = (data, model)
    layouts[r"transformer_layer_\d+/feedforward_output_dense/kernel$"] = (model, data)
    return layouts
