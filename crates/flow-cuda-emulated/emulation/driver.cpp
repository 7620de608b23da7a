// A CUDA driver without a device, for tests of host code on machines without one: memory is the host's, streams run at
// once, kernels are those that the emulated compiler has made. Built as libcuda.so. What the environment says:
// EMULATE_DEVICES how many devices there are, EMULATE_CAPABILITY theirs (such as 75), EMULATE_MEMORY their bytes;
// EMULATE_TRACE a file that gets a line for every call that a training step shall make few of; EMULATE_GRAPHS=0 lets
// every capture fail.
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <map>
#include <string>
#include <sys/mman.h>
#include <unistd.h>
#include <utility>
#include <functional>
#include <vector>

namespace {
enum { OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_SUPPORTED = 801, CAPTURE_UNSUPPORTED = 900, CAPTURE_ISOLATION = 905, NO_DEVICE = 100, INVALID_DEVICE = 101, INVALID_IMAGE = 200, NOT_FOUND = 500 };
// A block's shared memory is that of compute capability 9.0; without asking, a kernel has 48 KB.
constexpr unsigned SHARED_LIMIT = 232448, SHARED_DEFAULT = 49152;
using Kernel = void (*)(unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, size_t, void**);
// How many bytes every argument has, since a launch within a capture copies them.
struct Function { Kernel kernel; unsigned shared; const std::vector<size_t>* arguments; };

unsigned long long setting(const char* name, unsigned long long otherwise) { const char* text = std::getenv(name); return text ? std::strtoull(text, nullptr, 10) : otherwise; }
int devices() { return static_cast<int>(setting("EMULATE_DEVICES", 1)); }

// A buffer lies between two pages that cannot be touched, its end at the second: an access beyond it is a fault.
struct Buffer { void* base; size_t mapped, bytes; };
std::map<void*, Buffer> buffers;
size_t in_use = 0;

// What is captured: every node is the work that it does. A stream that is being captured runs nothing.
struct Graph { std::vector<std::function<void()>> nodes; };
Graph* capturing = nullptr;
int enqueue(std::function<void()> work) {
    if (capturing) capturing->nodes.push_back(std::move(work));
    else work();
    return OK;
}
void trace(const char* call, size_t number) {
    static const char* path = std::getenv("EMULATE_TRACE");
    if (!path) return;
    if (FILE* file = std::fopen(path, "a")) { std::fprintf(file, "%s %zu\n", call, number); std::fclose(file); }
}
void fault(int) {
    static const char text[] = "emulated kernel: access outside a buffer\n";
    (void)!write(2, text, sizeof text - 1);
    _exit(70);
}
} // namespace

extern "C" {
int cuInit(unsigned) { return devices() > 0 ? OK : NO_DEVICE; }
int cuDriverGetVersion(int* v) { *v = 13000; return OK; }
int cuDeviceGet(int* device, int i) { *device = i; return i < devices() ? OK : INVALID_DEVICE; }
int cuDeviceGetCount(int* n) { *n = devices(); return OK; }
int cuDeviceGetName(char* name, int n, int) { std::snprintf(name, static_cast<size_t>(n), "emulated"); return OK; }
int cuDeviceGetAttribute(int* value, int attribute, int) {
    const int capability = static_cast<int>(setting("EMULATE_CAPABILITY", 90));
    switch (attribute) {
    case 75: *value = capability / 10; break;
    case 76: *value = capability % 10; break;
    case 97: *value = SHARED_LIMIT; break;
    case 115: *value = 0; break; // no memory pools
    default: *value = 1;
    }
    return OK;
}
int cuDeviceTotalMem_v2(size_t* n, int) { *n = setting("EMULATE_MEMORY", 1ull << 34); return OK; }
int cuDevicePrimaryCtxRetain(void** c, int) { *c = reinterpret_cast<void*>(1); return OK; }
int cuDevicePrimaryCtxRelease_v2(int) { return OK; }
int cuCtxSetCurrent(void*) { return OK; }
int cuCtxGetCurrent(void** c) { *c = reinterpret_cast<void*>(1); return OK; }
int cuCtxSynchronize() { return capturing ? CAPTURE_UNSUPPORTED : OK; }
int cuStreamCreate(void** s, unsigned) { *s = reinterpret_cast<void*>(2); return OK; }
int cuStreamDestroy_v2(void*) { return OK; }
int cuStreamSynchronize(void*) { return capturing ? CAPTURE_UNSUPPORTED : OK; }
// Within a capture only events of that capture can be waited for.
int cuStreamWaitEvent(void*, void* e, unsigned) { return capturing && *static_cast<Graph**>(e) != capturing ? CAPTURE_ISOLATION : OK; }
int cuEventCreate(void** e, unsigned) { *e = new Graph*(nullptr); return OK; }
int cuEventRecord(void* e, void*) { *static_cast<Graph**>(e) = capturing; return OK; }
int cuEventSynchronize(void*) { return OK; }
int cuEventDestroy_v2(void* e) { delete static_cast<Graph**>(e); return OK; }
int cuMemAlloc_v2(void** p, size_t bytes) {
    if (bytes == 0) return INVALID_VALUE;
    if (capturing) return CAPTURE_UNSUPPORTED;
    trace("allocation", bytes);
    if (in_use + bytes > setting("EMULATE_MEMORY", 1ull << 34)) return OUT_OF_MEMORY;
    std::signal(SIGSEGV, fault);
    const size_t page = 4096, room = (bytes + page - 1) / page * page;
    char* base = static_cast<char*>(mmap(nullptr, room + 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (base == MAP_FAILED) return OUT_OF_MEMORY;
    mprotect(base, page, PROT_NONE);
    mprotect(base + page + room, page, PROT_NONE);
    *p = base + page + room - (bytes + 15) / 16 * 16;
    std::memset(*p, 0xff, bytes);
    buffers[*p] = {base, room + 2 * page, bytes};
    in_use += bytes;
    return OK;
}
int cuMemFree_v2(void* p) {
    auto found = buffers.find(p);
    if (found == buffers.end()) return INVALID_VALUE;
    in_use -= found->second.bytes;
    munmap(found->second.base, found->second.mapped);
    buffers.erase(found);
    return OK;
}
// What a node copies from the host or to it would have to live as long as the graph: no capture may have such a node.
int cuMemcpyHtoDAsync_v2(void* to, const void* from, size_t n, void*) {
    if (capturing) return CAPTURE_UNSUPPORTED;
    trace("upload", n);
    std::memcpy(to, from, n);
    return OK;
}
int cuMemcpyDtoHAsync_v2(void* to, const void* from, size_t n, void*) {
    if (capturing) return CAPTURE_UNSUPPORTED;
    trace("read", n);
    std::memcpy(to, from, n);
    return OK;
}
int cuMemcpyDtoDAsync_v2(void* to, const void* from, size_t n, void*) { return enqueue([=] { std::memcpy(to, from, n); }); }
int cuMemsetD8Async(void* to, unsigned char value, size_t n, void*) { return enqueue([=] { std::memset(to, value, n); }); }
int cuModuleLoadData(void** module, const void* image) {
    static const char mark[] = "emulated:";
    const char* text = static_cast<const char*>(image);
    if (std::strncmp(text, mark, sizeof mark - 1)) return INVALID_IMAGE;
    *module = dlopen(text + sizeof mark - 1, RTLD_NOW | RTLD_LOCAL);
    if (!*module) std::fprintf(stderr, "%s\n", dlerror());
    return *module ? OK : INVALID_IMAGE;
}
// What a process has loaded stays: fibres may still stand in it.
int cuModuleUnload(void*) { return OK; }
int cuModuleGetFunction(void** f, void* module, const char* name) {
    void* kernel = dlsym(module, (std::string("emulated_") + name).c_str());
    if (!kernel) return NOT_FOUND;
    using Sizes = const std::vector<size_t>* (*)();
    const Sizes sizes = reinterpret_cast<Sizes>(dlsym(module, (std::string("emulated_arguments_of_") + name).c_str()));
    if (!sizes) return NOT_FOUND;
    *f = new Function{reinterpret_cast<Kernel>(kernel), SHARED_DEFAULT, sizes()};
    return OK;
}
int cuFuncSetAttribute(void* f, int attribute, int value) {
    if (attribute != 8 || value < 0 || static_cast<unsigned>(value) > SHARED_LIMIT) return INVALID_VALUE;
    static_cast<Function*>(f)->shared = static_cast<unsigned>(value);
    return OK;
}
int cuLaunchKernel(void* f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared, void*, void** p, void**) {
    const Function* function = static_cast<Function*>(f);
    if (!gx || !gy || !gz || bx * by * bz == 0 || bx * by * bz > 1024 || shared > function->shared) return INVALID_VALUE;
    if (!capturing) {
        trace("launch", 1);
        function->kernel(gx, gy, gz, bx, by, bz, shared, p);
        return OK;
    }
    std::vector<std::vector<char>> arguments;
    for (size_t i = 0; i < function->arguments->size(); i++) {
        const char* from = static_cast<char*>(p[i]);
        arguments.emplace_back(from, from + (*function->arguments)[i]);
    }
    return enqueue([=, kernel = function->kernel]() mutable {
        std::vector<void*> places;
        for (auto& argument : arguments) places.push_back(argument.data());
        kernel(gx, gy, gz, bx, by, bz, shared, places.data());
    });
}
int cuStreamBeginCapture_v2(void*, int) {
    if (!setting("EMULATE_GRAPHS", 1)) return NOT_SUPPORTED;
    if (capturing) return INVALID_VALUE;
    capturing = new Graph;
    return OK;
}
int cuStreamEndCapture(void*, void** graph) {
    if (!capturing) return INVALID_VALUE;
    *graph = capturing;
    capturing = nullptr;
    return OK;
}
int cuStreamIsCapturing(void*, int* status) { *status = capturing ? 1 : 0; return OK; }
int cuGraphGetNodes(void* graph, void** nodes, size_t* count) {
    if (nodes) return NOT_SUPPORTED;
    *count = static_cast<Graph*>(graph)->nodes.size();
    return OK;
}
// An executable graph has its own copy of the nodes.
int cuGraphInstantiateWithFlags(void** executable, void* graph, unsigned long long) {
    const Graph* from = static_cast<Graph*>(graph);
    trace("instantiation", from->nodes.size());
    *executable = new Graph(*from);
    return OK;
}
int cuGraphLaunch(void* executable, void*) {
    if (capturing) return CAPTURE_UNSUPPORTED;
    const Graph* graph = static_cast<Graph*>(executable);
    trace("graph", graph->nodes.size());
    for (const auto& node : graph->nodes) node();
    return OK;
}
int cuGraphExecDestroy(void* executable) { delete static_cast<Graph*>(executable); return OK; }
int cuGraphDestroy(void* graph) { delete static_cast<Graph*>(graph); return OK; }
int cuGetErrorName(int, const char** s) { *s = "EMULATED"; return OK; }
int cuGetErrorString(int code, const char** s) {
    *s = code == OUT_OF_MEMORY ? "out of memory" : code == INVALID_VALUE ? "invalid argument" : code == NOT_SUPPORTED ? "operation not supported" : "emulated error";
    return OK;
}
}
