// Found in place of libtorch's own header only when there is no .libtorch: see config.toml.
#error "libtorch is not laid out yet. Run `make libtorch` (or `make quickstart`, which does) and build again."
