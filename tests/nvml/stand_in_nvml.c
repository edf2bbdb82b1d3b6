/* A stand-in for libnvidia-ml.so.1, so that the NVML probe can be tested on machines without a GPU.
 *
 * The world is a text file of "KEY VALUE..." lines, named by $STAND_IN_WORLD; stand_in.py writes it, the
 * keys are seen there. Every call looks its answer up by key, and the file is read again whenever it was replaced, so a test
 * changes the world under a running worker. Three keys concern calls themselves:
 *   answer.FUNCTION CODE      the call returns CODE          (answer.FUNCTION.GPU for one GPU)
 *   hang.FUNCTION 1           the call does not return while the world says so
 * $STAND_IN_EVENTS is a file to which lines "GPU XID" are appended.
 * Built with -DOLD_DRIVER the symbols that old drivers lack are missing.
 */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <pthread.h>

enum { SUCCESS, UNINITIALIZED, INVALID_ARGUMENT, NOT_SUPPORTED, INSUFFICIENT_SIZE = 7, DRIVER_NOT_LOADED = 9,
       TIMED_OUT = 10, GPU_IS_LOST = 15, VERSION_MISMATCH = 25 };
typedef unsigned long long u64;
typedef struct { char short_bus_id[16]; unsigned domain, bus, device, device_id, subsystem_id; char bus_id[32]; } pci_t;
typedef struct { unsigned pid; u64 memory; unsigned gpu_instance, compute_instance; } process_t;
typedef struct { void *device; u64 type, data; unsigned gpu_instance, compute_instance; } event_t;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct { char key[80], value[256]; } entries[4096];
static int entry_count, initialised;
static struct stat loaded;

static int load(void)
{
    const char *path = getenv("STAND_IN_WORLD");
    struct stat now;
    FILE *file;
    if (!path || stat(path, &now) || !(file = fopen(path, "r"))) return 0;
    if (now.st_ino != loaded.st_ino || now.st_mtim.tv_nsec != loaded.st_mtim.tv_nsec || now.st_size != loaded.st_size) {
        loaded = now;
        entry_count = 0;
        while (entry_count < 4096 && fscanf(file, "%79s %255[^\n]", entries[entry_count].key, entries[entry_count].value) == 2)
            entry_count++;
    }
    fclose(file);
    return 1;
}

/* Copies the value of the key into `value` (256 bytes); false where the world does not have it. */
static int look(char *value, const char *format, ...)
{
    char key[80];
    va_list arguments;
    int i, found;
    va_start(arguments, format);
    vsnprintf(key, sizeof key, format, arguments);
    va_end(arguments);
    pthread_mutex_lock(&lock);
    load();
    for (i = 0; i < entry_count && strcmp(entries[i].key, key); i++) {}
    found = i < entry_count;
    if (found) strcpy(value, entries[i].value);
    pthread_mutex_unlock(&lock);
    return found;
}

static int index_of(const void *device) { return (int)(long)device - 1; }

static int enter(const char *function, const void *device)
{
    char value[256];
    int i = index_of(device);
    while (look(value, "hang.%s", function)) usleep(10000);
    if (look(value, "answer.%s", function) || (device && look(value, "answer.%s.%d", function, i))) return atoi(value);
    if (!initialised) return UNINITIALIZED;
    if (device && !look(value, "gpu.%d.uuid", i)) return INVALID_ARGUMENT;
    return device && look(value, "gpu.%d.lost", i) ? GPU_IS_LOST : SUCCESS;
}
#define ENTER(device) do { int entered = enter(__func__, device); if (entered) return entered; } while (0)

/* The number under gpu.I.NAME; NOT_SUPPORTED where the world does not have it. */
static int number(const void *device, const char *name, u64 *out)
{
    char value[256];
    if (!look(value, "gpu.%d.%s", index_of(device), name)) return NOT_SUPPORTED;
    *out = strtoull(value, NULL, 0);
    return SUCCESS;
}
#define GET(device, name) u64 got; do { int answer_ = number(device, name, &got); if (answer_) return answer_; } while (0)

static int text(const char *value, char *out, unsigned size)
{
    if (strlen(value) >= size) return INSUFFICIENT_SIZE;
    strcpy(out, value);
    return SUCCESS;
}

static void fill_pci(pci_t *out, const char *address, unsigned vendor)
{
    memset(out, 0, sizeof *out);
    sscanf(address, "%x:%x:%x", &out->domain, &out->bus, &out->device);
    snprintf(out->bus_id, sizeof out->bus_id, "%08X:%02X:%02X.0", out->domain, out->bus & 0xff, out->device & 0xff);
    out->device_id = vendor;
}

static int bit_list(const void *device, const char *name, unsigned words, u64 *out)
{
    char value[256], *at = value;
    if (!look(value, "gpu.%d.%s", index_of(device), name)) return NOT_SUPPORTED;
    memset(out, 0, words * sizeof *out);
    while (*at) {
        unsigned long first = strtoul(at, &at, 10), last = *at == '-' ? strtoul(at + 1, &at, 10) : first;
        for (; first <= last && first < words * 64ul; first++) out[first / 64] |= 1ull << (first % 64);
        if (*at == ',') at++; else break;
    }
    return SUCCESS;
}

static int processes(const void *device, const char *kind, unsigned *count, process_t *out)
{
    char value[256];
    unsigned found = 0, room = out ? *count : 0, pid, mib;
    for (; look(value, "gpu.%d.%s.%u", index_of(device), kind, found); found++)
        if (found < room && sscanf(value, "%u %u", &pid, &mib) == 2)
            out[found] = (process_t){ pid, (u64)mib << 20, ~0u, ~0u };
    *count = found;
    return found > room ? INSUFFICIENT_SIZE : SUCCESS;
}

int nvmlInitWithFlags(unsigned flags)
{
    char value[256];
    (void)flags;
    if (look(value, "answer.nvmlInitWithFlags")) return atoi(value);
    pthread_mutex_lock(&lock);
    initialised = load();
    pthread_mutex_unlock(&lock);
    while (look(value, "hang.nvmlInitWithFlags")) usleep(10000);
    return initialised ? SUCCESS : DRIVER_NOT_LOADED;
}
int nvmlShutdown(void) { initialised = 0; return SUCCESS; }
const char *nvmlErrorString(int code) { return code == GPU_IS_LOST ? "GPU is lost" : "stand-in error"; }

int nvmlSystemGetDriverVersion(char *out, unsigned size)
{
    char value[256];
    ENTER(NULL);
    return look(value, "driver") ? text(value, out, size) : NOT_SUPPORTED;
}
int nvmlDeviceGetCount_v2(unsigned *count)
{
    char value[256];
    ENTER(NULL);
    for (*count = 0; look(value, "gpu.%u.uuid", *count); ++*count) {}
    return SUCCESS;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) { *device = (void *)(long)(index + 1); ENTER(*device); return SUCCESS; }
int nvmlDeviceGetUUID(void *d, char *out, unsigned size) { char value[256]; ENTER(d); look(value, "gpu.%d.uuid", index_of(d)); return text(value, out, size); }
int nvmlDeviceGetName(void *d, char *out, unsigned size) { char value[256]; ENTER(d); return look(value, "gpu.%d.name", index_of(d)) ? text(value, out, size) : NOT_SUPPORTED; }
int nvmlDeviceGetPciInfo_v3(void *d, pci_t *out) { char value[256]; ENTER(d); if (!look(value, "gpu.%d.pci", index_of(d))) return NOT_SUPPORTED; fill_pci(out, value, 0x20B010DE); return SUCCESS; }
int nvmlDeviceGetMemoryInfo(void *d, u64 *out) { ENTER(d); u64 used = 0; GET(d, "memory"); number(d, "used", &used); out[0] = got << 20; out[2] = (used + 500) << 20; out[1] = out[0] - out[2]; return SUCCESS; }
int nvmlDeviceGetUtilizationRates(void *d, unsigned *out) { ENTER(d); GET(d, "utilisation"); out[0] = (unsigned)got; out[1] = 0; return SUCCESS; }
int nvmlDeviceGetTemperature(void *d, int sensor, unsigned *out) { (void)sensor; ENTER(d); GET(d, "temperature"); *out = (unsigned)got; return SUCCESS; }
int nvmlDeviceGetCpuAffinity(void *d, unsigned words, u64 *out) { ENTER(d); return bit_list(d, "cpus", words, out); }
int nvmlDeviceGetComputeRunningProcesses_v2(void *d, unsigned *count, process_t *out) { ENTER(d); return processes(d, "compute", count, out); }

int nvmlDeviceGetTopologyCommonAncestor(void *a, void *b, unsigned *level)
{
    char value[256];
    int i = index_of(a), j = index_of(b);
    ENTER(a);
    ENTER(b);
    if (!look(value, "pair.%d.%d", i < j ? i : j, i < j ? j : i)) return NOT_SUPPORTED;
    *level = (unsigned)atoi(value);
    return SUCCESS;
}
int nvmlDeviceGetNvLinkState(void *d, unsigned link, unsigned *active) { char value[256]; ENTER(d); if (!look(value, "gpu.%d.link.%u", index_of(d), link)) return NOT_SUPPORTED; *active = strcmp(value, "down") != 0; return SUCCESS; }
int nvmlDeviceGetNvLinkRemotePciInfo_v2(void *d, unsigned link, pci_t *out)
{
    char value[256], kind[16], address[64];
    ENTER(d);
    if (!look(value, "gpu.%d.link.%u", index_of(d), link) || sscanf(value, "%15s %63s", kind, address) != 2) return NOT_SUPPORTED;
    fill_pci(out, address, strcmp(kind, "npu") ? 0x1AF110DE : 0x04EA1014);
    return SUCCESS;
}

#ifndef OLD_DRIVER
int nvmlDeviceGetMemoryInfo_v2(void *d, char *out) { ENTER(d); if (*(unsigned *)out != 0x02000028) return VERSION_MISMATCH; u64 used = 0, *m = (u64 *)(out + 8); GET(d, "memory"); number(d, "used", &used); m[0] = got << 20; m[1] = 500ull << 20; m[3] = used << 20; m[2] = m[0] - m[1] - m[3]; return SUCCESS; }
int nvmlDeviceGetCpuAffinityWithinScope(void *d, unsigned words, u64 *out, unsigned scope) { (void)scope; ENTER(d); return bit_list(d, "cpus", words, out); }
int nvmlDeviceGetMemoryAffinity(void *d, unsigned words, u64 *out, unsigned scope) { (void)scope; ENTER(d); return bit_list(d, "nodes", words, out); }
int nvmlDeviceGetNumaNodeId(void *d, int *out) { ENTER(d); GET(d, "own_node"); *out = (int)got; return SUCCESS; }
int nvmlDeviceGetMigMode(void *d, unsigned *current, unsigned *pending) { ENTER(d); GET(d, "mig"); *current = *pending = (unsigned)got; return SUCCESS; }
int nvmlDeviceGetTotalEccErrors(void *d, int type, int counter, u64 *out) { (void)type; (void)counter; ENTER(d); GET(d, "ecc"); *out = got; return SUCCESS; }
int nvmlDeviceGetRemappedRows(void *d, unsigned *correctable, unsigned *uncorrectable, unsigned *pending, unsigned *failed) { ENTER(d); GET(d, "remap"); *correctable = *uncorrectable = 0; *pending = got & 1; *failed = got >> 1 & 1; return SUCCESS; }
int nvmlDeviceGetRetiredPagesPendingStatus(void *d, unsigned *pending) { ENTER(d); GET(d, "retired"); *pending = (unsigned)got; return SUCCESS; }
int nvmlDeviceGetCurrentClocksEventReasons(void *d, u64 *out) { ENTER(d); GET(d, "slow"); *out = got; return SUCCESS; }
typedef struct { unsigned field, scope; long long timestamp, latency; int type, answer; union { unsigned number; u64 wide; } value; } field_t;
int nvmlDeviceGetFieldValues(void *d, int count, field_t *out)
{
    ENTER(d);
    for (int i = 0; i < count; i++) {
        u64 got = 0;
        out[i].answer = out[i].field == 230 ? number(d, "recovery", &got) : NOT_SUPPORTED;
        out[i].value.number = (unsigned)got;
    }
    return SUCCESS;
}
int nvmlDeviceGetComputeRunningProcesses_v3(void *d, unsigned *count, process_t *out) { ENTER(d); return processes(d, "compute", count, out); }
int nvmlDeviceGetGraphicsRunningProcesses_v3(void *d, unsigned *count, process_t *out) { ENTER(d); return processes(d, "graphics", count, out); }
int nvmlDeviceGetNvLinkRemoteDeviceType(void *d, unsigned link, unsigned *type)
{
    char value[256];
    ENTER(d);
    if (!look(value, "gpu.%d.link.%u", index_of(d), link)) return NOT_SUPPORTED;
    *type = !strncmp(value, "gpu", 3) ? 0 : !strncmp(value, "npu", 3) ? 1 : !strncmp(value, "switch", 6) ? 2 : 255;
    return SUCCESS;
}
int nvmlDeviceGetP2PStatus(void *a, void *b, unsigned what, unsigned *status)
{
    char value[256];
    int i = index_of(a), j = index_of(b);
    ENTER(a);
    ENTER(b);
    if (!look(value, "p2p.%d.%d.%u", i < j ? i : j, i < j ? j : i, what)) return NOT_SUPPORTED;
    *status = (unsigned)atoi(value);
    return SUCCESS;
}
int nvmlEventSetCreate(long **set)
{
    const char *path = getenv("STAND_IN_EVENTS");
    struct stat now;
    ENTER(NULL);
    *set = calloc(1, sizeof **set);
    **set = path && !stat(path, &now) ? now.st_size : 0; /* events of the past are not told */
    return SUCCESS;
}
static u64 registered;
int nvmlDeviceRegisterEvents(void *d, u64 types, long *set) { (void)set; ENTER(d); registered |= 1ull << index_of(d); return types & ~8ull ? NOT_SUPPORTED : SUCCESS; }
int nvmlEventSetWait_v2(long *set, event_t *out, unsigned milliseconds)
{
    const char *path = getenv("STAND_IN_EVENTS");
    ENTER(NULL);
    for (unsigned waited = 0; waited <= milliseconds; waited += 5, usleep(5000)) {
        FILE *file = path ? fopen(path, "r") : NULL;
        char value[256];
        unsigned gpu, xid;
        for (int i = 0; i < 64; i++)
            if (registered >> i & 1 && look(value, "gpu.%d.lost", i)) return GPU_IS_LOST;
        int length = 0, read = file && !fseek(file, *set, SEEK_SET) ? fscanf(file, "%u %u%n", &gpu, &xid, &length) : 0;
        if (file) fclose(file);
        if (read != 2) continue;
        *set += length;
        *out = (event_t){ (void *)(long)(gpu + 1), 8, xid, ~0u, ~0u };
        return SUCCESS;
    }
    return TIMED_OUT;
}
#endif
