/*
 * The kernel work of one `run`, and nothing else: no JSON, no state, no path checks, no create/start split. It is what the
 * runtimes are compared with: a lower bound for doing it this way (one clone, mount(2), libseccomp's linear filter), not
 * for the kernel as such.
 *
 *   floor minimal ROOTFS CGROUP ARGV...
 *   floor podman  ROOTFS CGROUP FILES FILTER ARGV...
 *
 * CGROUP is relative to each hierarchy's root. FILES holds hosts, hostname, .containerenv and a mounted shm; FILTER is an
 * array of struct sock_filter. What the two modes do is what minimal.json and podman.json ask for; keep them in step.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#define LEN(array) (sizeof(array) / sizeof *(array))
#define MUST(call)                                                                                                     \
    do {                                                                                                               \
        if ((long)(call) < 0) {                                                                                        \
            dprintf(2, "floor:%d: %s: %s\n", __LINE__, #call, strerror(errno));                                        \
            _exit(125);                                                                                                \
        }                                                                                                              \
    } while (0)

enum { QUIET = MS_NOSUID | MS_NOEXEC | MS_NODEV, PATH = 512 };
static const char *const CONTROLLERS[] = {"cpu",     "cpuacct", "cpuset", "memory",   "devices",    "freezer", "blkio",
                                          "pids",    "systemd", "net_cls", "net_prio", "perf_event", "hugetlb", "rdma",
                                          "misc"};
static int present[LEN(CONTROLLERS)];
static const char *cgroup;
static int podman, unified;

static int put(const char *path, const char *text) {
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return -1;
    ssize_t done = write(fd, text, strlen(text));
    close(fd);
    return done < 0 ? -1 : 0;
}

/* The file `name` of this container's cgroup in one hierarchy; an empty name gives the directory. */
static const char *at(const char *controller, const char *name) {
    static char path[PATH];
    snprintf(path, PATH, "/sys/fs/cgroup/%s%s%s/%s", controller, *controller ? "/" : "", cgroup, name);
    return path;
}

static void limit_v1(void) {
    static const char *const allow[] = {"c *:* m",   "b *:* m",   "c 1:3 rwm", "c 1:5 rwm",   "c 1:7 rwm",
                                        "c 1:8 rwm", "c 1:9 rwm", "c 5:0 rwm", "c 136:* rwm", "c 5:2 rwm"};
    MUST(put(at("devices", "devices.deny"), "a"));
    for (size_t i = 0; i < LEN(allow); i++) MUST(put(at("devices", "devices.allow"), allow[i]));
    if (!podman) return;
    MUST(put(at("memory", "memory.limit_in_bytes"), "268435456"));
    put(at("memory", "memory.memsw.limit_in_bytes"), "536870912"); /* absent where swap is not accounted */
    MUST(put(at("cpu", "cpu.cfs_period_us"), "100000"));
    MUST(put(at("cpu", "cpu.cfs_quota_us"), "50000"));
    MUST(put(at("pids", "pids.max"), "100"));
}

/* A v1 cpuset takes no process before it has processors and memory nodes. */
static void inherit_cpuset(const char *file) {
    char path[PATH], value[256];
    snprintf(path, PATH, "/sys/fs/cgroup/cpuset/%s/../%s", cgroup, file);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    MUST(fd);
    ssize_t size = read(fd, value, sizeof value - 1);
    MUST(size);
    close(fd);
    value[size] = 0;
    MUST(put(at("cpuset", file), value));
}

/* Returns the directory to clone into on v2, -1 on v1, where the child joins by itself. */
static int make_cgroups(void) {
    unified = access("/sys/fs/cgroup/cgroup.controllers", F_OK) == 0;
    if (unified) {
        MUST(mkdir(at("", ""), 0755));
        if (podman) {
            MUST(put(at("", "memory.max"), "268435456"));
            put(at("", "memory.swap.max"), "268435456");
            MUST(put(at("", "cpu.max"), "50000 100000"));
            MUST(put(at("", "pids.max"), "100"));
        }
        int fd = open(at("", ""), O_PATH | O_DIRECTORY | O_CLOEXEC);
        MUST(fd);
        return fd;
    }
    for (size_t i = 0; i < LEN(CONTROLLERS); i++) {
        present[i] = mkdir(at(CONTROLLERS[i], ""), 0755) == 0;
        if (!present[i] && errno != ENOENT) MUST(-1);
    }
    inherit_cpuset("cpuset.cpus");
    inherit_cpuset("cpuset.mems");
    limit_v1();
    return -1;
}

static void remove_cgroups(void) {
    if (unified) MUST(rmdir(at("", "")));
    for (size_t i = 0; i < LEN(CONTROLLERS); i++)
        if (present[i]) MUST(rmdir(at(CONTROLLERS[i], "")));
}

static void bind(const char *from, const char *to, unsigned long flags) {
    MUST(mount(from, to, 0, MS_BIND, 0));
    if (flags) MUST(mount(0, to, 0, MS_REMOUNT | MS_BIND | flags, 0));
}

static void mount_cgroups(void) {
    if (unified) {
        bind(at("", ""), "sys/fs/cgroup", QUIET | MS_RDONLY);
        return;
    }
    MUST(mount("tmpfs", "sys/fs/cgroup", "tmpfs", QUIET, "mode=755"));
    for (size_t i = 0; i < LEN(CONTROLLERS); i++) {
        char to[PATH];
        if (!present[i]) continue;
        snprintf(to, PATH, "sys/fs/cgroup/%s", CONTROLLERS[i]);
        MUST(mkdir(to, 0755));
        bind(at(CONTROLLERS[i], ""), to, QUIET | MS_RDONLY);
    }
    MUST(mount(0, "sys/fs/cgroup", 0, MS_REMOUNT | MS_BIND | QUIET | MS_RDONLY, 0));
}

static void mount_all(const char *root, const char *files) {
    MUST(mount("", "/", 0, MS_SLAVE | MS_REC, 0));
    MUST(mount(root, root, 0, MS_BIND | MS_REC, 0));
    MUST(chdir(root));
    MUST(mount("proc", "proc", "proc", podman ? QUIET : 0, 0));
    MUST(mount("tmpfs", "dev", "tmpfs", MS_NOSUID | MS_STRICTATIME | (podman ? MS_NOEXEC : 0), "mode=755,size=65536k"));
    MUST(mkdir("dev/pts", 0755));
    MUST(mkdir("dev/shm", 0755));
    MUST(mkdir("dev/mqueue", 0755));
    MUST(mount("devpts", "dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5"));
    MUST(mount("mqueue", "dev/mqueue", "mqueue", QUIET, 0));
    MUST(mount("sysfs", "sys", "sysfs", QUIET | MS_RDONLY, 0));
    if (!podman) {
        MUST(mount("shm", "dev/shm", "tmpfs", QUIET, "mode=1777,size=65536k"));
        return;
    }
    static const char *const binds[][2] = {{".containerenv", "run/.containerenv"},
                                           {"hostname", "etc/hostname"},
                                           {"hosts", "etc/hosts"},
                                           {"shm", "dev/shm"}};
    for (size_t i = 0; i < LEN(binds); i++) {
        char from[PATH];
        snprintf(from, PATH, "%s/%s", files, binds[i][0]);
        bind(from, binds[i][1], i == 3 ? QUIET : 0);
        MUST(mount(0, binds[i][1], 0, MS_PRIVATE, 0));
    }
    mount_cgroups();
}

static void make_devices(void) {
    static const struct {
        const char *name;
        unsigned major, minor;
    } nodes[] = {{"dev/null", 1, 3},   {"dev/zero", 1, 5},    {"dev/full", 1, 7},
                 {"dev/random", 1, 8}, {"dev/urandom", 1, 9}, {"dev/tty", 5, 0}};
    umask(0);
    for (size_t i = 0; i < LEN(nodes); i++)
        MUST(mknod(nodes[i].name, S_IFCHR | 0666, makedev(nodes[i].major, nodes[i].minor)));
    umask(022);
    MUST(symlink("/proc/self/fd", "dev/fd"));
    MUST(symlink("/proc/self/fd/0", "dev/stdin"));
    MUST(symlink("/proc/self/fd/1", "dev/stdout"));
    MUST(symlink("/proc/self/fd/2", "dev/stderr"));
    MUST(symlink("pts/ptmx", "dev/ptmx"));
}

static void mask_paths(void) {
    static const char *const masked[] = {"proc/acpi",        "proc/kcore",      "proc/keys",    "proc/latency_stats",
                                         "proc/timer_list",  "proc/timer_stats", "proc/sched_debug", "proc/scsi",
                                         "sys/firmware",     "sys/fs/selinux",  "sys/dev/block"};
    static const char *const fixed[] = {"proc/asound", "proc/bus", "proc/fs", "proc/irq", "proc/sys", "proc/sysrq-trigger"};
    for (size_t i = 0; i < LEN(masked); i++) {
        if (mount("/dev/null", masked[i], 0, MS_BIND, 0) == 0 || errno == ENOENT) continue;
        if (errno != ENOTDIR) MUST(-1);
        MUST(mount("tmpfs", masked[i], "tmpfs", MS_RDONLY, "size=0k"));
    }
    for (size_t i = 0; i < LEN(fixed); i++) {
        if (mount(fixed[i], fixed[i], 0, MS_BIND | MS_REC, 0) < 0) continue;
        MUST(mount(0, fixed[i], 0, MS_REMOUNT | MS_BIND | QUIET | MS_RDONLY, 0));
    }
}

/* Drops all capabilities but those of `keep`, from the bounding set too. */
static void keep_capabilities(unsigned long long keep) {
    for (int cap = 0; cap < 64; cap++)
        if (!(keep >> cap & 1) && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0) break; /* EINVAL: past the last one */
    struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct sets[2] = {{keep, keep, 0}, {keep >> 32, keep >> 32, 0}};
    MUST(syscall(SYS_capset, &head, sets));
}

static void harden(const struct sock_fprog *filter) {
    static const struct rlimit files = {1024, 4096}, processes = {4096, 4096};
    if (!podman) {
        MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
        keep_capabilities(1ull << CAP_AUDIT_WRITE | 1ull << CAP_KILL | 1ull << CAP_NET_BIND_SERVICE);
        return;
    }
    MUST(setrlimit(RLIMIT_NOFILE, &files));
    MUST(setrlimit(RLIMIT_NPROC, &processes));
    MUST(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, filter));
    keep_capabilities(1ull << CAP_CHOWN | 1ull << CAP_DAC_OVERRIDE | 1ull << CAP_FOWNER | 1ull << CAP_FSETID |
                      1ull << CAP_KILL | 1ull << CAP_NET_BIND_SERVICE | 1ull << CAP_SETFCAP | 1ull << CAP_SETGID |
                      1ull << CAP_SETPCAP | 1ull << CAP_SETUID | 1ull << CAP_SYS_CHROOT);
}

static void container(const char *root, const char *files, const struct sock_fprog *filter, char **argv) {
    static char *const env[] = {"PATH=/bin", 0};
    /* "0" into v1's `tasks` by the only thread: a pid into cgroup.procs would wait for an RCU grace period. */
    for (size_t i = 0; i < LEN(CONTROLLERS); i++)
        if (present[i]) MUST(put(at(CONTROLLERS[i], "tasks"), "0"));
    MUST(setsid());
    MUST(sethostname("bench", 5));
    mount_all(root, files);
    make_devices();
    if (podman) {
        MUST(put("proc/sys/net/ipv4/ping_group_range", "0 0"));
        mask_paths();
    }
    MUST(syscall(SYS_pivot_root, ".", "."));
    MUST(umount2(".", MNT_DETACH));
    MUST(chdir("/"));
    harden(filter);
    execve(argv[0], argv, env);
    MUST(-1);
}

int main(int argc, char **argv) {
    static struct sock_filter rules[4096];
    struct sock_fprog filter = {0, rules};
    podman = argc > 1 && !strcmp(argv[1], "podman");
    int first = podman ? 6 : 4, status;
    if (argc <= first) {
        dprintf(2, "usage: floor minimal ROOTFS CGROUP ARGV...\n       floor podman ROOTFS CGROUP FILES FILTER ARGV...\n");
        return 2;
    }
    cgroup = argv[3];
    if (podman) {
        int fd = open(argv[5], O_RDONLY | O_CLOEXEC);
        ssize_t size = read(fd, rules, sizeof rules);
        MUST(size);
        close(fd);
        filter.len = size / sizeof *rules;
    }
    int directory = make_cgroups();
    struct clone_args args = {.flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS,
                              .exit_signal = SIGCHLD};
    if (directory >= 0) {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = directory;
    }
    pid_t child = syscall(SYS_clone3, &args, sizeof args);
    MUST(child);
    if (child == 0) container(argv[2], podman ? argv[4] : 0, &filter, argv + first);
    MUST(waitpid(child, &status, 0));
    remove_cgroups();
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
