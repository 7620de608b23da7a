"""Compiles the CUDA kernels to machine code, which takes no GPU, and holds them to what is written beside them.

For every architecture: no spills, no more registers than the budget, no atomic instruction on floats. The compiler is
NVIDIA's, from its wheel; where that cannot be had, this says so and is content.
"""

import ctypes, pathlib, re, subprocess, sys, tempfile

WHEEL = "nvidia-cuda-nvrtc==13.0.88"
ARCHITECTURES = ["sm_80", "sm_90", "sm_100", "sm_120"]
CRATES = pathlib.Path(__file__).parent.parent / "crates"
KERNELS, ELEMENT_MAPS = CRATES / "flow-cuda/kernels", CRATES / "flow-api/src/spec/element_maps"


def library():
    folder = tempfile.mkdtemp()
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check", "--target", folder, WHEEL]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=120)
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, str(error)
    if found.returncode:
        return None, (found.stderr.strip().splitlines() or ["pip failed"])[-1]
    files = sorted(pathlib.Path(folder).rglob("libnvrtc*.so*"))
    # The compiler opens its builtins by name: they are there already then.
    for file in files:
        if "builtins" in file.name:
            ctypes.CDLL(str(file), mode=ctypes.RTLD_GLOBAL)
    main = [file for file in files if file.name.startswith("libnvrtc.so")]
    return (ctypes.CDLL(str(main[0])), "") if main else (None, "the wheel has no libnvrtc")


def compiled(nvrtc, source, options, ptx):
    text, header = source.encode(), (KERNELS / "device.cuh").read_bytes()
    program = ctypes.c_void_p()
    headers, names = (ctypes.c_char_p * 1)(header), (ctypes.c_char_p * 1)(b"device.cuh")
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), text, b"kernels.cu", 1, headers, names)
    code = nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*[o.encode() for o in options]))
    what = "PTX" if ptx and not code else "ProgramLog"
    size = ctypes.c_size_t()
    getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
    found = ctypes.create_string_buffer(size.value)
    getattr(nvrtc, f"nvrtcGet{what}")(program, found)
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    if code:
        sys.exit(f"{options[0]}: the kernels do not compile:\n{found.value.decode()}")
    return found.value.decode()


def text_of_flows():
    """All element-wise maps as crates/flow-cuda/src/snippets.rs writes them: kernels of models that have any."""
    text, cases = '#include "device.cuh"\n', ""
    for i, file in enumerate(sorted(ELEMENT_MAPS.glob("*.cu"))):
        own = file.read_text()
        text += f"namespace snippet_{i} {{\n{own}}}\n"
        parameters = max((int(k) + 1 for k in re.findall(r"\bp\[(\d+)\]", own)), default=0)
        cases += f" CASE({i}, {parameters})"
    return text + f"#define SNIPPETS(CASE){cases}\n"


def main():
    nvrtc, reason = library()
    if nvrtc is None:
        print(f"SKIPPED: registers of the CUDA kernels are not looked at, since {WHEEL} cannot be had: {reason}")
        return
    faults = []
    # A program, its texts, and the definitions besides none that it is compiled with.
    for name, texts, definition in [
        ("map.cu", ["transformers.cu", "side.cu", "map.cu"], ""),
        ("map.cu in TF32", ["transformers.cu", "side.cu", "map.cu"], "-DTF32"),
        ("pull.cu", ["transformers.cu", "side.cu", "pull.cu"], ""),
        ("pull.cu in TF32", ["transformers.cu", "side.cu", "pull.cu"], "-DTF32"),
        ("map.cu with text of flows", ["transformers.cu", "side.cu", "map.cu"], ""),
        ("pull.cu with text of flows", ["transformers.cu", "side.cu", "pull.cu"], ""),
        ("step.cu", ["step.cu"], ""),
    ]:
        source = "".join((KERNELS / text).read_text() for text in texts)
        if name.endswith("of flows"):
            source = text_of_flows() + source
        options = ["--std=c++17"] + ([definition] if definition else [])
        budgets = dict(re.findall(r"^// Budget: (\w+) (\d+) registers", source, re.M))
        kernels = set(re.findall(r"^KERNEL\((\w+),", source, re.M))
        if kernels != set(budgets):
            faults.append(f"{name}: kernels {sorted(kernels)} have budgets {sorted(budgets)}")
        ptx = compiled(nvrtc, source, ["-arch=compute_80", *options], True)
        faults += [f"{name}: {found}" for found in re.findall(r"^\s*(?:atom|red)\.[^;]*\.f(?:16|32|64)[^;]*;", ptx, re.M)]
        for architecture in ARCHITECTURES:
            log = compiled(nvrtc, source, [f"-arch={architecture}", *options, "--ptxas-options=-v"], False)
            found = re.findall(r"entry function '(\w+)'.*?(\d+) bytes spill stores, (\d+) bytes spill loads.*?Used (\d+) registers", log, re.S)
            if {kernel for kernel, *_ in found} != kernels:
                faults.append(f"{name}, {architecture}: the compiler tells of {[kernel for kernel, *_ in found]}")
            for kernel, stores, loads, registers in found:
                if int(stores) + int(loads) or int(registers) > int(budgets.get(kernel, 0)):
                    faults.append(f"{architecture}: {kernel}: {registers} registers, spills {stores} + {loads}; budget {budgets.get(kernel)}, 0")
            print(f"{name}, {architecture}: " + ", ".join(f"{kernel} {registers}" for kernel, _, _, registers in found))
    if faults:
        sys.exit("\n".join(faults))


main()
