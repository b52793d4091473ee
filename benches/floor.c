/* The floor of "start a container, run it, wait, clean up": the kernel's share and nothing else.
 *
 *     floor LOWER,UPPER,WORK,MERGED COMMAND [ARGUMENT...]
 *
 * Six namespaces, a volatile overlay, proc, a private /dev, sysfs, masked paths, control groups with limits, bounding set,
 * no_new_privs, Landlock and a filter of a hundred instructions. No user namespace, no files, no parsing, no library.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#define MUST(call)                                                        \
    do {                                                                  \
        if ((long)(call) < 0) {                                           \
            fprintf(stderr, "floor: %s: %s\n", #call, strerror(errno));   \
            _exit(125);                                                   \
        }                                                                 \
    } while (0)

static const char *const GROUPS[] = { "pids", "memory", "cpu" };
static const char *const LIMITS[][2] = { { "pids.max", "512" }, { "memory.limit_in_bytes", "536870912" }, { "cpu.shares", "512" } };
static int tasks[3];

static void put(const char *path, const char *text) {
    int file = open(path, O_WRONLY | O_CLOEXEC);
    MUST(file);
    MUST(write(file, text, strlen(text)));
    close(file);
}

static void group_path(char *out, int which, const char *leaf) {
    sprintf(out, "/sys/fs/cgroup/%s/bench-floor-%d%s%s", GROUPS[which], getpid(), *leaf ? "/" : "", leaf);
}

/* The child moves itself ("0" into `tasks`), which does not wait for a grace period. */
static void groups_make(void) {
    char path[256];
    for (int i = 0; i < 3; i++) {
        group_path(path, i, "");
        MUST(mkdir(path, 0755));
        group_path(path, i, LIMITS[i][0]);
        put(path, LIMITS[i][1]);
        group_path(path, i, "tasks");
        MUST(tasks[i] = open(path, O_WRONLY | O_CLOEXEC));
    }
}

static void groups_remove(void) {
    char path[256];
    for (int i = 0; i < 3; i++) {
        group_path(path, i, "");
        rmdir(path);
    }
}

static void node(const char *path, int major, int minor) {
    MUST(mknod(path, S_IFCHR | 0666, makedev(major, minor)));
}

static void mounts(const char *layers) {
    char lower[512], upper[512], work[512], merged[512], options[2048];
    if (sscanf(layers, "%511[^,],%511[^,],%511[^,],%511s", lower, upper, work, merged) != 4) _exit(2);
    snprintf(options, sizeof options, "lowerdir=%s,upperdir=%s,workdir=%s,volatile", lower, upper, work);
    MUST(mount(0, "/", 0, MS_REC | MS_PRIVATE, 0));
    MUST(mount("overlay", merged, "overlay", 0, options));
    MUST(chdir(merged));
    MUST(mount("proc", "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, 0));
    MUST(mount("tmpfs", "dev", "tmpfs", MS_NOSUID | MS_STRICTATIME, "mode=755,size=65536k"));
    node("dev/null", 1, 3), node("dev/zero", 1, 5), node("dev/full", 1, 7), node("dev/random", 1, 8), node("dev/urandom", 1, 9), node("dev/tty", 5, 0);
    mkdir("dev/pts", 0755), mkdir("dev/shm", 0755), mkdir("dev/mqueue", 0755);
    symlink("pts/ptmx", "dev/ptmx"), symlink("/proc/self/fd", "dev/fd");
    MUST(mount("devpts", "dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620"));
    MUST(mount("shm", "dev/shm", "tmpfs", MS_NOSUID | MS_NOEXEC | MS_NODEV, "mode=1777,size=65536k"));
    MUST(mount("mqueue", "dev/mqueue", "mqueue", MS_NOSUID | MS_NOEXEC | MS_NODEV, 0));
    MUST(mount("sysfs", "sys", "sysfs", MS_NOSUID | MS_NOEXEC | MS_NODEV | MS_RDONLY, 0));
    static const char *const hidden[] = { "proc/kcore", "proc/keys", "proc/latency_stats", "proc/timer_list", "proc/sched_debug" };
    static const char *const empty[] = { "proc/acpi", "proc/scsi", "sys/firmware" };
    static const char *const fixed[] = { "proc/bus", "proc/fs", "proc/irq", "proc/sys", "proc/sysrq-trigger" };
    for (size_t i = 0; i < sizeof hidden / sizeof *hidden; i++) mount("dev/null", hidden[i], 0, MS_BIND, 0);
    for (size_t i = 0; i < sizeof empty / sizeof *empty; i++) mount("tmpfs", empty[i], "tmpfs", MS_RDONLY, "size=0k");
    for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++)
        if (!mount(fixed[i], fixed[i], 0, MS_BIND | MS_REC, 0)) mount(0, fixed[i], 0, MS_BIND | MS_REMOUNT | MS_RDONLY, 0);
    MUST(syscall(SYS_pivot_root, ".", "."));
    MUST(umount2(".", MNT_DETACH));
    MUST(chdir("/"));
}

/* 32 allowed ranges as a search tree: what a compiler that merges ranges makes of an allow-list. */
static struct sock_filter filter[256];
static unsigned short length;

static void emit(unsigned short code, unsigned char yes, unsigned char no, unsigned int value) {
    filter[length++] = (struct sock_filter){ code, yes, no, value };
}

static void tree(int low, int high) {
    if (high - low == 1) {
        emit(BPF_JMP | BPF_JGE | BPF_K, 0, 1, low * 16 + 614);
        emit(BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ERRNO | 1);
        emit(BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW);
        return;
    }
    int middle = (low + high) / 2, at = length++;
    tree(low, middle);
    filter[at] = (struct sock_filter){ BPF_JMP | BPF_JGE | BPF_K, (unsigned char)(length - at - 1), 0, middle * 16 + 600 };
    tree(middle, high);
}

static void walls(void) {
    for (int capability = 0; capability <= 40; capability++)
        if (!((0xa80425fbULL >> capability) & 1)) prctl(PR_CAPBSET_DROP, capability, 0, 0, 0);
    MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    struct landlock_ruleset_attr handled = { .handled_access_fs = (1ULL << 13) - 1 };
    int rules = syscall(SYS_landlock_create_ruleset, &handled, sizeof handled, 0);
    MUST(rules);
    struct landlock_path_beneath_attr all = { .allowed_access = (1ULL << 13) - 1, .parent_fd = open("/", O_PATH | O_CLOEXEC) };
    MUST(syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &all, 0));
    MUST(syscall(SYS_landlock_restrict_self, rules, 0));
    close(all.parent_fd);
    close(rules);
    emit(BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(struct seccomp_data, arch));
    emit(BPF_JMP | BPF_JEQ | BPF_K, 1, 0, AUDIT_ARCH_X86_64);
    emit(BPF_RET | BPF_K, 0, 0, SECCOMP_RET_KILL_PROCESS);
    emit(BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(struct seccomp_data, nr));
    tree(0, 32);
    struct sock_fprog program = { length, filter };
    MUST(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program));
}

int main(int count, char **words) {
    if (count < 3) {
        fprintf(stderr, "usage: floor LOWER,UPPER,WORK,MERGED COMMAND [ARGUMENT...]\n");
        return 2;
    }
    groups_make();
    struct { uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup; } clone = {
        .flags = CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWUTS | CLONE_NEWIPC, .exit_signal = SIGCHLD,
    };
    long child = syscall(SYS_clone3, &clone, sizeof clone);
    MUST(child);
    if (child == 0) {
        for (int i = 0; i < 3; i++) MUST(write(tasks[i], "0", 1));
        MUST(unshare(CLONE_NEWCGROUP));
        MUST(sethostname("floor", 5));
        mounts(words[1]);
        walls();
        char *environment[] = { "PATH=/bin:/usr/bin:/sbin:/usr/sbin", 0 };
        execve(words[2], words + 2, environment);
        MUST(-1);
    }
    int status;
    MUST(waitpid(child, &status, 0));
    groups_remove();
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
