// The CUDA compiler NVRTC for tests: has a C++ compiler make a library of the kernels for the emulated driver. Built as
// libnvrtc.so. "Machine code" is the path of that library, which is made once for every text.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <regex>
#include <sstream>
#include <string>
#include <sys/stat.h>
#include <unistd.h>

namespace {
enum { OK = 0, COMPILATION = 6 };
struct Program { std::string source, log, image; };

std::string read(const std::string& path) {
    std::ifstream file(path);
    std::ostringstream text;
    text << file.rdbuf();
    return text.str();
}
} // namespace

extern "C" {
int nvrtcVersion(int* major, int* minor) { *major = 13; *minor = 0; return OK; }
// The kernels' own headers are left to the emulation's.
int nvrtcCreateProgram(void** program, const char* source, const char*, int, const char* const*, const char* const*) {
    *program = new Program{source, "", ""};
    return OK;
}
// Of the options, definitions are heeded. A program is called by its first kernel.
int nvrtcCompileProgram(void* p, int count, const char* const* options) {
    Program* program = static_cast<Program*>(p);
    static const std::regex kernel("\nKERNEL\\((\\w+),");
    std::smatch first;
    std::string text = "#define EMULATED_PROGRAM \"" + (std::regex_search(program->source, first, kernel) ? first[1].str() : "") + "\"\n";
    for (int i = 0; i < count; i++)
        if (std::string(options[i]).rfind("-D", 0) == 0) text += "#define " + std::string(options[i] + 2) + "\n";
    text += "#line 1 \"kernels\"\n" + program->source + "\n";
    for (std::sregex_iterator found(program->source.begin(), program->source.end(), kernel), end; found != end; ++found)
        text += "EMULATED_KERNEL(" + (*found)[1].str() + ")\n";
    const size_t hash = std::hash<std::string>()(text + read(EMULATION "/device.cuh"));
    const std::string stem = std::string(OUT) + "/kernels-" + std::to_string(hash), library = stem + ".so";
    program->image = "emulated:" + library;
    if (access(library.c_str(), R_OK) == 0) return OK;
    const std::string own = stem + "-" + std::to_string(getpid()), log = own + ".log";
    std::ofstream(own + ".cpp") << text;
    const std::string command = std::string(CXX) + " -std=c++17 -O1 -w -U_FORTIFY_SOURCE -shared -fPIC -I'" EMULATION "' '" + own + ".cpp' -o '" + own + ".so' > '" + log + "' 2>&1";
    const int code = std::system(command.c_str());
    program->log = read(log);
    if (code == 0) std::rename((own + ".so").c_str(), library.c_str());
    unlink((own + ".cpp").c_str());
    unlink(log.c_str());
    return code == 0 ? OK : COMPILATION;
}
int nvrtcGetCUBINSize(void* p, size_t* n) { *n = static_cast<Program*>(p)->image.size() + 1; return OK; }
int nvrtcGetCUBIN(void* p, char* to) { std::strcpy(to, static_cast<Program*>(p)->image.c_str()); return OK; }
int nvrtcGetProgramLogSize(void* p, size_t* n) { *n = static_cast<Program*>(p)->log.size() + 1; return OK; }
int nvrtcGetProgramLog(void* p, char* to) { std::strcpy(to, static_cast<Program*>(p)->log.c_str()); return OK; }
int nvrtcDestroyProgram(void** p) { delete static_cast<Program*>(*p); *p = nullptr; return OK; }
const char* nvrtcGetErrorString(int) { return "emulated error"; }
}
