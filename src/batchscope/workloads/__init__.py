"""Workloads by name: built-in ones, and a user's ``path/to/file.py:function``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchscope.lazy import exports

if TYPE_CHECKING:
    from batchscope.workloads.blank import template as template
    from batchscope.workloads.catalogue import Listed as Listed
    from batchscope.workloads.catalogue import check_name as check_name
    from batchscope.workloads.catalogue import load as load
    from batchscope.workloads.catalogue import names as names
    from batchscope.workloads.registry import WORKLOADS as WORKLOADS
    from batchscope.workloads.source import is_file as is_file
    from batchscope.workloads.user_code import explained as explained
    from batchscope.workloads.user_code import in_words as in_words
    from batchscope.workloads.user_code import place_of as place_of
    from batchscope.workloads.user_file import load_file as load_file
else:  # a type checker is not told of __getattr__: it would believe every name
    __all__, __getattr__ = exports(
        __name__,
        {
            "blank": ("template",),
            "catalogue": ("Listed", "check_name", "load", "names"),
            "registry": ("WORKLOADS",),
            "source": ("is_file",),
            "user_code": ("explained", "in_words", "place_of"),
            "user_file": ("load_file",),
        },
    )
