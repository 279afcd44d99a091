// The installed t2k from C++: the rows of a softmax sum to one, and a NaN is passed on.
#include <t2k.h>

#include <cmath>
#include <cstdio>
#include <limits>
#include <vector>

int main()
{
    const int64_t rows = 5, cols = 130;
    std::vector<float> x(rows * cols), y(rows * cols);
    for (size_t i = 0; i < x.size(); i++) {
        x[i] = static_cast<float>(i % 17) - 8.0f;
    }
    x[4 * cols + 3] = std::numeric_limits<float>::quiet_NaN();
    if (t2k_softmax(rows, cols, x.data(), cols, y.data(), cols) != T2K_OK) {
        std::fprintf(stderr, "t2k_softmax failed\n");
        return 1;
    }
    for (int64_t i = 0; i < rows; i++) {
        double sum = 0.0;
        for (int64_t j = 0; j < cols; j++) {
            sum += static_cast<double>(y[i * cols + j]);
        }
        const bool good = i == 4 ? std::isnan(sum) : std::fabs(sum - 1.0) < 1e-6;
        if (!good) {
            std::fprintf(stderr, "row %d sums to %g\n", static_cast<int>(i), sum);
            return 1;
        }
    }
    std::printf("t2k from C++ on %s\n", t2k_isa_name());
    return 0;
}
