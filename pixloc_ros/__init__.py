"""pixloc_ros: where am I on this map? A camera answers, by aligning deep features."""

from pkgutil import extend_path

__version__ = "0.1.0"

# In a development tree the generated pixloc_ros.msg lies in an overlay, not beside these sources.
__path__ = extend_path(__path__, __name__)
