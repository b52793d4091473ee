/* Builds a filter with libseccomp from lines on stdin and writes the program to stdout.
 * First line: errno of the default action. Others: ACTION NUMBER COUNT (INDEX OP A B)*, ACTION -1 is allow, else errno. */
#include <seccomp.h>
#include <stdio.h>

int main(void) {
    unsigned errno_default;
    if (scanf("%u", &errno_default) != 1) return 2;
    scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ERRNO(errno_default));
    int action, number, count;
    while (scanf("%d %d %d", &action, &number, &count) == 3) {
        struct scmp_arg_cmp args[6];
        for (int i = 0; i < count && i < 6; i++) {
            unsigned index, op;
            unsigned long long a, b;
            if (scanf("%u %u %llu %llu", &index, &op, &a, &b) != 4) return 2;
            args[i] = SCMP_CMP(index, (enum scmp_compare)op, a, b);
        }
        uint32_t verdict = action < 0 ? SCMP_ACT_ALLOW : SCMP_ACT_ERRNO(action);
        int error = seccomp_rule_add_array(ctx, verdict, number, count, args);
        if (error) { fprintf(stderr, "rule for %d: %d\n", number, error); return 3; }
    }
    return seccomp_export_bpf(ctx, 1) ? 4 : 0;
}
