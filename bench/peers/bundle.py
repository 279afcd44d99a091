"""Runs one of several modules that are in the program, not in files.

t2bench starts Python with this text, and behind it a call of run() that has the sources. They are
found again by tracebacks and by inspect, which compilers of Python use.
"""
import importlib.abc
import importlib.util
import runpy
import sys


class Bundle(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    def __init__(self, sources, main):
        self.sources = {**sources, "__main__": sources[main]}

    def find_spec(self, name, path=None, target=None):
        if name not in self.sources:
            return None
        return importlib.util.spec_from_loader(name, self, origin=file_of(name))

    def get_source(self, name):
        return self.sources[name]

    def get_code(self, name):
        return self.source_to_code(self.sources[name], file_of(name))


def file_of(name):
    return f"t2bench/{name}.py"


def run(name, sources):
    sys.meta_path.insert(0, Bundle(sources, name))
    runpy.run_module(name, run_name="__main__", alter_sys=True)
