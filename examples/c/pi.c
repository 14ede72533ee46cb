/* Pi by the midpoint rule; reads a small input file, like many older programs, and prints the error. */
#include <math.h>
#include <stdio.h>

int main(int count, char **arguments)
{
    long points = 0;
    FILE *input = count > 1 ? fopen(arguments[1], "r") : NULL;
    if (!input || fscanf(input, "&run points = %ld", &points) != 1 || points < 1) {
        fprintf(stderr, "usage: pi INPUT, where INPUT has a line '&run points = N /'\n");
        return 2;
    }
    double sum = 0;
    for (long i = 0; i < points; i++) {
        double x = (i + 0.5) / points;
        sum += 4 / (1 + x * x);
    }
    printf("points %ld\nerror = %.3e\n", points, fabs(sum / points - 3.14159265358979323846));
    return 0;
}
