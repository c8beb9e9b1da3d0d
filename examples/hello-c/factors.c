/* Prints the prime factors of its one argument as JSON. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

int main(int count, char **words)
{
    char *end = NULL;
    errno = 0;
    unsigned long long number = count == 2 ? strtoull(words[1], &end, 10) : 0;
    if (number < 2 || errno != 0 || *end != '\0' || number >> 63) {
        fprintf(stderr, "a whole number from 2 to 2^63 - 1 is needed\n");
        return 2;
    }
    printf("{\"number\": %llu, \"factors\": [", number);
    const char *between = "";
    for (unsigned long long factor = 2; factor <= number / factor; factor += factor == 2 ? 1 : 2) {
        while (number % factor == 0) {
            printf("%s%llu", between, factor);
            between = ", ";
            number /= factor;
        }
    }
    if (number > 1)
        printf("%s%llu", between, number);
    printf("]}\n");
    return 0;
}
