"""The folder that a device needs: read, write and check it.

bundle     the folder or .zip: opened, checked, written
manifest   the schema of `bundle.json`
unpack     a .zip, no more of it than its manifest lists
covered    what the certificate was measured with, and whether that is still here
signature  who vouches for it, and whether a device trusts them
signing    keys, and a signature for a finished bundle
target     where bundles are pushed to: a folder, a web server, an OCI registry
shipping   push and pull: whole, checked and in one step
store      a device's bundles: which decides, which is on trial, what became of each
"""

from tinysaver_edge.bundle.bundle import Bundle

__all__ = ["Bundle"]
