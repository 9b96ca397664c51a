"""Registry hives: made empty here, read and changed by hivex."""

import os
import struct

import hivex

SZ, EXPAND_SZ, BINARY, DWORD, MULTI_SZ, QWORD = 1, 2, 3, 4, 7, 11
TYPES = {"REG_SZ": SZ, "REG_EXPAND_SZ": EXPAND_SZ, "REG_BINARY": BINARY, "REG_DWORD": DWORD, "REG_MULTI_SZ": MULTI_SZ,
         "REG_QWORD": QWORD}


def encode(kind, value):
    if kind in (SZ, EXPAND_SZ):
        return (value + "\0").encode("utf-16-le")
    if kind == DWORD:
        return struct.pack("<I", value & 0xFFFFFFFF)
    if kind == QWORD:
        return struct.pack("<Q", value)
    if kind == MULTI_SZ:
        return ("".join(text + "\0" for text in value) + "\0").encode("utf-16-le")
    return bytes(value)


def decode(kind, data):
    if kind in (SZ, EXPAND_SZ):
        return data.decode("utf-16-le", "replace").split("\0")[0]
    if kind == DWORD:
        return struct.unpack("<I", data[:4])[0]
    if kind == QWORD:
        return struct.unpack("<Q", data[:8])[0]
    if kind == MULTI_SZ:
        return [text for text in data.decode("utf-16-le", "replace").split("\0") if text]
    return data


def empty(path, name):
    """A hive with a root key and its security, as Windows makes a new one."""
    # O:BAG:SYD:(A;CI;KA;;;SY)(A;CI;KA;;;BA)(A;CI;KR;;;WD)
    administrators = bytes.fromhex("01020000000000052000000020020000")
    system = bytes.fromhex("010100000000000512000000")
    everyone = bytes.fromhex("010100000000000100000000")

    def allow(mask, sid):
        return struct.pack("<BBHI", 0, 2, 8 + len(sid), mask) + sid

    entries = allow(0xF003F, system) + allow(0xF003F, administrators) + allow(0x20019, everyone)
    access = struct.pack("<BBHHH", 2, 0, 8 + len(entries), 3, 0) + entries
    owner_at = 20 + len(access)
    security = struct.pack("<BBHIIII", 1, 0, 0x8004, owner_at, owner_at + len(administrators), 0, 20)
    security += access + administrators + system

    def cell(body):
        body += bytes(-(len(body) + 4) % 8)
        return struct.pack("<i", -(len(body) + 4)) + body

    key_name = name.encode("latin-1")
    root_at = 0x20
    none = 0xFFFFFFFF
    key_length = len(cell(bytes(0x4C) + key_name))
    security_at = root_at + key_length
    key = struct.pack("<2sHQIIIIIIIIIIIIIIIHH", b"nk", 0x2C, 0x01DB000000000000, 0, none, 0, 0, none, none, 0, none,
                      security_at, none, 0, 0, 0, 0, 0, len(key_name), 0) + key_name
    used = cell(key) + cell(struct.pack("<2sHIIII", b"sk", 0, security_at, security_at, 1, len(security)) + security)
    bin_bytes = 0x1000
    free = bin_bytes - 0x20 - len(used)
    data = struct.pack("<4sIIQQI", b"hbin", 0, bin_bytes, 0, 0x01DB000000000000, 0) + used
    data += struct.pack("<i", free) + bytes(free - 4)
    base = struct.pack("<4sIIQIIIIIII", b"regf", 1, 1, 0x01DB000000000000, 1, 3, 0, 1, root_at, bin_bytes, 1)
    base += (os.path.basename(path)[:31].encode("utf-16-le")).ljust(64, b"\0")
    base = base.ljust(508, b"\0")
    checksum = 0
    for word in struct.unpack("<127I", base):
        checksum ^= word
    base = (base + struct.pack("<I", checksum)).ljust(0x1000, b"\0")
    with open(path, "wb") as file:
        file.write(base + data)


class Hive:
    def __init__(self, path, write=False):
        self.path = path
        self.hive = hivex.Hivex(path, write=write)

    def node(self, key, create=False):
        node = self.hive.root()
        for part in [part for part in key.split("\\") if part]:
            child = self.hive.node_get_child(node, part)
            if not child:
                if not create:
                    return None
                child = self.hive.node_add_child(node, part)
            node = child
        return node

    def keys(self, key):
        node = self.node(key)
        return [self.hive.node_name(child) for child in self.hive.node_children(node)] if node else []

    def has(self, key):
        return self.node(key) is not None

    def values(self, key):
        node = self.node(key)
        found = {}
        for value in self.hive.node_values(node) if node else []:
            kind, data = self.hive.value_value(value)
            found[self.hive.value_key(value)] = (kind, decode(kind, data))
        return found

    def get(self, key, name, default=None):
        for have, (_, value) in self.values(key).items():
            if have.lower() == name.lower():
                return value
        return default

    def add_key(self, key):
        self.node(key, create=True)

    def set(self, key, name, kind, value):
        self.hive.node_set_value(self.node(key, create=True), {"key": name, "t": kind, "value": encode(kind, value)})

    def delete_value(self, key, name):
        node = self.node(key)
        if node:
            left = [self.hive.value_value(value) + (self.hive.value_key(value),) for value in self.hive.node_values(node)]
            self.hive.node_set_values(node, [{"key": have, "t": kind, "value": data} for kind, data, have in left
                                             if have.lower() != name.lower()])

    def delete_key(self, key):
        node = self.node(key)
        if node and node != self.hive.root():
            self.hive.node_delete_child(node)

    def commit(self):
        self.hive.commit(None)


class Machine:
    """HKEY_LOCAL_MACHINE of the Windows at `root`. Changes are written when the block ends without an error."""

    ROOTS = {"hklm", "hkey_local_machine"}

    def __init__(self, root, write=False):
        self.config = os.path.join(root, "Windows/System32/config")
        self.write = write
        self.hives = {}

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if self.write and kind is None:
            for hive in self.hives.values():
                hive.commit()

    def find(self, path):
        """The hive of a path and the key in it: `HKLM\\SOFTWARE\\…`, `HKLM:\\…` or `SOFTWARE\\…`."""
        parts = [part for part in path.replace(":", "").split("\\") if part]
        if parts and parts[0].lower() in self.ROOTS:
            parts = parts[1:]
        name = parts[0].upper() if parts else ""
        if name not in ("SOFTWARE", "SYSTEM"):
            raise KeyError(f"no hive for {path}")
        if name not in self.hives:
            self.hives[name] = Hive(os.path.join(self.config, name), self.write)
        hive, parts = self.hives[name], parts[1:]
        if name == "SYSTEM" and parts and parts[0].lower() == "currentcontrolset":
            parts[0] = "ControlSet%03d" % hive.get("Select", "Current", 1)
        return hive, "\\".join(parts)

    def get(self, path, name, default=None):
        hive, key = self.find(path)
        return hive.get(key, name, default)

    def has(self, path):
        hive, key = self.find(path)
        return hive.has(key)

    def keys(self, path):
        hive, key = self.find(path)
        return hive.keys(key)

    def set(self, path, name, kind, value):
        hive, key = self.find(path)
        hive.set(key, name, kind, value)

    def add_key(self, path):
        hive, key = self.find(path)
        hive.add_key(key)

    def delete_key(self, path):
        hive, key = self.find(path)
        hive.delete_key(key)

    def delete_value(self, path, name):
        hive, key = self.find(path)
        hive.delete_value(key, name)
