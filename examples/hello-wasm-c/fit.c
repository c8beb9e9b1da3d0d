/* A straight line through points, by least squares. Doubles in WebAssembly have one result for each operation, and the
 * points are added up in the order in which they came: whoever runs this module gets the same seventeen digits. */
#include <stdio.h>
#include <stdlib.h>

#define POINTS_MAX 100000

static double xs[POINTS_MAX], ys[POINTS_MAX];

static double mean(const double *values, int count)
{
    double sum = 0;
    for (int i = 0; i < count; i++)
        sum += values[i];
    return sum / count;
}

int main(void)
{
    int count = 0;
    char line[256];
    while (fgets(line, sizeof line, stdin)) {
        char *rest, *end;
        double x = strtod(line, &rest), y = strtod(rest, &end);
        if (rest == line)
            continue; /* An empty line. */
        if (end == rest || count == POINTS_MAX) {
            fprintf(stderr, "line %d: two numbers are expected, at most %d lines\n", count + 1, POINTS_MAX);
            return 2;
        }
        xs[count] = x;
        ys[count++] = y;
    }
    if (count < 2) {
        fputs("at least two points are needed\n", stderr);
        return 2;
    }
    double mean_x = mean(xs, count), mean_y = mean(ys, count), xx = 0, xy = 0, yy = 0;
    for (int i = 0; i < count; i++) {
        double x = xs[i] - mean_x, y = ys[i] - mean_y;
        xx += x * x;
        xy += x * y;
        yy += y * y;
    }
    if (xx == 0) {
        fputs("all points lie above one another\n", stderr);
        return 2;
    }
    double slope = xy / xx;
    printf("{\"points\": %d, \"slope\": %.17g, \"intercept\": %.17g, \"explained\": %.17g}\n", count, slope,
           mean_y - slope * mean_x, yy == 0 ? 1 : xy * xy / (xx * yy));
    return 0;
}
