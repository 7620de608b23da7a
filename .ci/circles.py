"""Fails where files of one crate import each other in a circle, and names the imports that close it.

A file depends on the file that holds an item which it names, by `use` or by a path in its code. What a file only hands on, as a room's mod.rs does
with the items of its files, is looked through: whoever imports it depends on the file that holds it, and the mod.rs on nothing. Tests do not count.

A mod.rs that holds the type of its room and the files of the room, which see that type's private fields, may know each other: files of a folder may
import what its mod.rs holds. They are no circle by that alone, but are one as soon as a file outside the folder takes part, or two of them without it.
"""

import re
import sys
from pathlib import Path

# Files that may import each other, each set with its reason: a circle may stand if one set holds all its files.
NATURAL = [
    # A kind builds what it names in any number type, and a number type builds whatever kind is named.
    {f"flow-api/src/spec/kinds/{name}.rs" for name in ("base", "model", "row_flow", "sample_flow", "scalar")},
    # A device holds its kernels, and a kernel is launched on the device.
    {f"flow-cuda/src/{name}.rs" for name in ("driver", "kernels", "step_kernels")},
]

ROOT = Path(__file__).resolve().parent.parent
NAME = r"(?:r#)?[A-Za-z_][A-Za-z0-9_]*"
TOKENS = re.compile(r"""
    (?P<comment>//[^\n]*|/\*(?:[^*]|\*(?!/))*\*/)
  | (?P<raw>b?r(?P<hashes>\#*)"(?:.|\n)*?"(?P=hashes))
  | (?P<string>b?"(?:[^"\\]|\\.|\\\n)*")
  | (?P<char>b?'(?:[^'\\\n]|\\[^\n]{1,9}?)')
""", re.VERBOSE)
USE = re.compile(r"(?P<public>\bpub\s*(?:\([^)]*\)\s*)?)?\buse\s+(?P<tree>[^;]+);")
PATH = re.compile(rf"(?<![\w:.])\$?{NAME}(?:\s*::\s*{NAME})+")
ITEM = re.compile(rf"\b(?:fn|struct|enum|trait|type|const|static|macro_rules!|mod)\s+({NAME})")
BRACKET = re.compile(r"[{}()\[\]]")
CONST_FN = re.compile(r"\b(?:const|unsafe|async)\s+(?=fn\b|unsafe\b|async\b)")


def closing(text, start):
    """The place behind the bracket that closes the one at `start`."""
    depth = 0
    for bracket in BRACKET.finditer(text, start):
        depth += 1 if bracket.group() in "{[(" else -1
        if depth == 0:
            return bracket.end()
    return len(text)


def without_tests(code):
    """Code without modules and items for tests alone, and the names of modules for tests that are files."""
    files = []
    while found := re.search(r"#\[cfg\(test\)\]", code):
        item = re.compile(r"[;{]").search(code, found.end())
        if not item:
            break
        if item.group() == ";":
            end = item.end()
            if named := re.search(rf"\bmod\s+({NAME})\s*;", code[found.end():end]):
                files.append(named.group(1))
        else:
            end = closing(code, item.start())
        code = code[:found.start()] + code[end:]
    return code, files


def leaves(tree, before=()):
    """The paths of a `use`, each with the name that it gives."""
    tree = tree.strip()
    if "{" in tree:
        head, _, rest = tree.partition("{")
        before += tuple(part.strip() for part in head.split("::") if part.strip())
        depth, part = 0, ""
        for letter in rest[:rest.rindex("}")] + ",":
            depth += (letter == "{") - (letter == "}")
            if letter == "," and depth == 0:
                if part.strip():
                    yield from leaves(part, before)
                part = ""
            else:
                part += letter
        return
    path, _, renamed = tree.partition(" as ")
    path = before + tuple(part.strip() for part in path.split("::") if part.strip())
    if path[-1] == "self":
        path = path[:-1]
    if path:
        yield path, renamed.strip() or path[-1]


class File:
    def __init__(self, path, source):
        self.path = path
        parts = list(path.relative_to(source).with_suffix("").parts)
        self.module = tuple(parts[:-1] if parts[-1] in ("mod", "lib", "main") else parts)
        code = TOKENS.sub(lambda found: '""' if found["raw"] or found["string"] else " ", path.read_text())
        code, self.tests = without_tests(code)
        self.uses = [(bool(use["public"]), path, name) for use in USE.finditer(code) for path, name in leaves(use["tree"])]
        self.code = USE.sub(" ", code)
        self.names = set(re.findall(NAME, self.code))
        outside, depth, start, code = [], 0, 0, CONST_FN.sub("", self.code)
        for bracket in BRACKET.finditer(code):
            if depth == 0:
                outside.append(code[start:bracket.start()])
            depth += 1 if bracket.group() in "{([" else -1
            start = bracket.end()
        self.items = set(ITEM.findall(" ".join(outside) + code[start:]))


class Crate:
    def __init__(self, source):
        files = [File(path, source) for path in sorted(source.rglob("*.rs"))]
        tests = {file.module + (name,) for file in files for name in file.tests}
        self.files = {file.module: file for file in files if file.module not in tests}
        self.macros = {name: file for file in self.files.values() for name in re.findall(rf"macro_rules!\s+({NAME})", file.code)}

    def absolute(self, file, path):
        """A path of a file from the crate's root, or none where it leads to another crate."""
        head, *rest = path
        if head in ("crate", "$crate"):
            return tuple(rest)
        if head == "self":
            return file.module + tuple(rest)
        if head == "super":
            module = file.module[:-1]
            while rest and rest[0] == "super":
                module, rest = module[:-1], rest[1:]
            return module + tuple(rest)
        if file.module + (head,) in self.files:
            return file.module + tuple(path)
        for _, used, name in file.uses:
            if name == head and used != tuple(path) and (at := self.absolute(file, used)) is not None:
                return at + tuple(rest)
        return None

    def holder(self, path, seen=()):
        """The module that holds what stands at a path from the root, and whether that is a module itself."""
        module = path
        while module not in self.files:
            module = module[:-1]
        if module == path:
            return module, True
        file, (name, *rest) = self.files[module], path[len(module):]
        if name in file.items or (module, name) in seen:
            return module, False
        seen += ((module, name),)
        for _, used, given in file.uses:
            if given == name and (at := self.absolute(file, used)) is not None:
                return self.holder(at + tuple(rest), seen)
        for _, used, given in file.uses:
            if given == "*" and (at := self.absolute(file, used[:-1])) in self.files and self.gives(at, name, seen):
                return self.holder(at + (name, *rest), seen)
        return module, False

    def gives(self, module, name, seen):
        holder, _ = self.holder(module + (name,), seen)
        return name in self.files[holder].items or holder == module + (name,)

    def needs(self, file):
        """What a file needs of others: their modules, each with a path by which it is named."""
        named = {}

        def need(path, shown):
            at = self.absolute(file, path)
            if at is None:
                return
            module, whole = self.holder(at)
            if module != file.module and not whole:
                named.setdefault(module, shown)

        for public, path, name in file.uses:
            if name == "*":
                at = self.absolute(file, path[:-1])
                for used in file.names if at in self.files and not public else ():
                    if self.gives(at, used, ()):
                        need(path[:-1] + (used,), "::".join(path))
            elif not public or name in file.names:
                need(path, "::".join(path))
        for found in PATH.findall(file.code):
            path = tuple(re.split(r"\s*::\s*", found))
            need(path, "::".join(path))
        for name in re.findall(rf"\b({NAME})!", file.code):
            if name in self.macros and self.macros[name] is not file:
                named.setdefault(self.macros[name].module, f"{name}!")
        return named


def circles(needs):
    """The strongly connected components of more than one module, by Tarjan's algorithm."""
    index, low, stack, found = {}, {}, [], []

    def visit(module):
        index[module] = low[module] = len(index)
        stack.append(module)
        for other in needs[module]:
            if other not in index:
                visit(other)
                low[module] = min(low[module], low[other])
            elif other in stack:
                low[module] = min(low[module], index[other])
        if low[module] == index[module]:
            component = set(stack[stack.index(module):])
            del stack[stack.index(module):]
            if len(component) > 1:
                found.append(component)

    for module in needs:
        if module not in index:
            visit(module)
    return found


def real_circles(needs):
    """The circles that are more than a room's files knowing the room's own mod.rs."""
    for circle in circles(needs):
        room = min(circle, key=len)
        if room and all(module[:len(room)] == room for module in circle):
            inside = {module: (needs[module].keys() & circle) - {room} for module in circle}
            yield from real_circles({module: dict.fromkeys(others) for module, others in inside.items()})
        else:
            yield circle


def main():
    sys.setrecursionlimit(10_000)
    count, failed = 0, False
    for source in sorted(ROOT.glob("crates/*/src")):
        crate = Crate(source)
        count += len(crate.files)
        needs = {module: crate.needs(file) for module, file in crate.files.items()}
        if "--all" in sys.argv:
            for module in needs:
                for other, shown in needs[module].items():
                    print("  ", "::".join(module) or "lib", "→", "::".join(other) or "lib", "by", shown)
        for circle in real_circles(needs):
            names = {str(crate.files[module].path.relative_to(ROOT / "crates")) for module in circle}
            if any(names <= natural for natural in NATURAL):
                continue
            failed = True
            print(f"{source.parent.name}: {len(circle)} files import each other in a circle")
            for module in sorted(circle):
                for other in sorted(needs[module].keys() & circle):
                    print("  ", "::".join(module) or "lib", "→", "::".join(other) or "lib", "by", needs[module][other])
    if failed:
        sys.exit("files of a crate must not import each other in a circle: move what two of them need to where both can call it")
    print(f"{count} files without a circle")


main()
