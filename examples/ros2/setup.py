"""Installs the package, as colcon wants it."""

from setuptools import setup

NAME = "tinysaver_ros"

setup(
    name=NAME,
    version="0.1.0",
    packages=[NAME],
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        (f"share/{NAME}/launch", ["launch/classify.launch.py"]),
        (f"share/{NAME}/config", ["config/classify.yaml", "config/large_images.xml"]),
    ],
    # tinysaver-edge and an engine are pip's: rosdep knows neither.
    install_requires=["setuptools"],
    zip_safe=True,
    entry_points={"console_scripts": [f"classify = {NAME}.__main__:main"]},
)
