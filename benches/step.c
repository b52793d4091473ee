/* Runs a command one instruction at a time and writes which instructions of its program each process passed.
 *
 *     step FILE COMMAND [ARGUMENT...]
 *
 * One line for each process and address, in the order of the first time: the number of the process in the order of their
 * birth, the address in hexadecimal. A process that executes another program is let go. Some microseconds an instruction.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

enum { BASE = 0x400000, LENGTH = 0x1000000, MOST = 64 };

static struct { pid_t pid; unsigned char *seen; } processes[MOST];
static int count;

static int number_of(pid_t pid)
{
    for (int i = 0; i < count; i++)
        if (processes[i].pid == pid)
            return i;
    if (count == MOST || !(processes[count].seen = calloc(1, LENGTH))) {
        fprintf(stderr, "step: too many processes\n");
        exit(125);
    }
    processes[count].pid = pid;
    return count++;
}

int main(int argc, char **argv)
{
    const long options = PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL;
    FILE *out = argc < 3 ? NULL : fopen(argv[1], "w");
    if (!out) {
        fprintf(stderr, "usage: step FILE COMMAND [ARGUMENT...]\n");
        return 125;
    }
    pid_t first = fork(), pid;
    if (first == 0) {
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        raise(SIGSTOP);
        execvp(argv[2], argv + 2);
        _exit(127);
    }
    int status, started = 0, code = 125;
    waitpid(first, &status, 0);
    ptrace(PTRACE_SETOPTIONS, first, 0, options);
    ptrace(PTRACE_CONT, first, 0, 0);
    while ((pid = waitpid(-1, &status, __WALL)) > 0 || errno != ECHILD) {
        if (pid > 0 && pid == first && WIFEXITED(status))
            code = WEXITSTATUS(status);
        if (pid <= 0 || !WIFSTOPPED(status))
            continue;
        int signal = WSTOPSIG(status);
        if (status >> 16 == PTRACE_EVENT_EXEC && started++) {
            ptrace(PTRACE_DETACH, pid, 0, 0);
            continue;
        }
        if (started) {
            unsigned long at = ptrace(PTRACE_PEEKUSER, pid, offsetof(struct user_regs_struct, rip), 0) - BASE;
            int number = number_of(pid);
            if (at < LENGTH && !processes[number].seen[at]) {
                processes[number].seen[at] = 1;
                fprintf(out, "%d %lx\n", number, at + BASE);
            }
        }
        /* Its own stops and the first one of a new process are no signals for it. */
        ptrace(PTRACE_SINGLESTEP, pid, 0, signal == SIGTRAP || signal == SIGSTOP ? 0 : signal);
    }
    return fclose(out) ? 125 : code;
}
