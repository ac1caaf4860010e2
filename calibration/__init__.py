"""Data, not code: importing this folder fails, so that nothing comes to depend on it."""

raise ModuleNotFoundError(
    f"{__name__}/ holds data, not code: tinysaver_edge._support.resources says where it lies",
    name=__name__,
)
