// gbench.cc - the C shim over Google Benchmark (written for 1.7.1): see gbench.h.
#include "gbench.h"

#include <benchmark/benchmark.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

namespace
{

using Run = benchmark::BenchmarkReporter::Run;

benchmark::State *unwrap(gbench_state *state)
{
    return reinterpret_cast<benchmark::State *>(state);
}

const benchmark::State *unwrap(const gbench_state *state)
{
    return reinterpret_cast<const benchmark::State *>(state);
}

// The library appends how it measured ("/manual_time") to every name. A row's name is how two
// reports are matched, so it stays what was registered.
Run with_plain_name(const Run &run)
{
    Run copy = run;
    copy.run_name.time_type.clear();
    return copy;
}

class PlainJson : public benchmark::JSONReporter
{
  public:
    void ReportRuns(const std::vector<Run> &runs) override
    {
        std::vector<Run> copies;
        for (const Run &run : runs) {
            copies.push_back(with_plain_name(run));
        }
        benchmark::JSONReporter::ReportRuns(copies);
    }
};

class CallbackReporter : public benchmark::BenchmarkReporter
{
  public:
    CallbackReporter(gbench_report_fn *report, void *arg) : report_(report), arg_(arg)
    {
    }

    bool ReportContext(const Context &) override
    {
        return true;
    }

    void ReportRuns(const std::vector<Run> &runs) override
    {
        for (const Run &run : runs) {
            const std::string name = with_plain_name(run).benchmark_name();
            const double unit = benchmark::GetTimeUnitMultiplier(run.time_unit);
            gbench_row row = {};
            row.name = name.c_str();
            row.error = run.error_occurred ? run.error_message.c_str() : nullptr;
            row.label = run.report_label.c_str();
            row.aggregate = run.run_type == Run::RT_Aggregate;
            row.repetition = run.repetition_index;
            row.iterations = run.iterations;
            row.real_seconds = run.GetAdjustedRealTime() / unit;
            row.cpu_seconds = run.GetAdjustedCPUTime() / unit;
            report_(&row, arg_);
        }
    }

  private:
    gbench_report_fn *report_;
    void *arg_;
};

// A flag that may come from the command line or, as for the library, from the environment.
struct Flag {
    const char *option;
    const char *variable;
    std::string value;

    void read(int argc, char **argv)
    {
        if (const char *text = std::getenv(variable)) {
            value = text;
        }
        const std::size_t length = std::strlen(option);
        for (int i = 1; i < argc; i++) {
            if (std::strncmp(argv[i], option, length) == 0) {
                value = argv[i] + length;
            }
        }
    }
};

Flag out_file = {"--benchmark_out=", "BENCHMARK_OUT", ""};
Flag out_format = {"--benchmark_out_format=", "BENCHMARK_OUT_FORMAT", "json"};

// Runs the body and gives its value, or `failure` where it throws: nothing may unwind into C.
template <typename T, typename Body> T guarded(T failure, Body body)
{
    try {
        return body();
    } catch (...) {
        return failure;
    }
}

} // namespace

int gbench_initialize(int *argc, char **argv)
{
    return guarded(-1, [&] {
        out_file.read(*argc, argv);
        out_format.read(*argc, argv);
        benchmark::Initialize(argc, argv);
        return 0;
    });
}

int gbench_register(const char *name, gbench_fn *fn, void *arg, unsigned flags)
{
    return guarded(-1, [&] {
        benchmark::internal::Benchmark *b =
            benchmark::RegisterBenchmark(name, [fn, arg](benchmark::State &state) {
                fn(reinterpret_cast<gbench_state *>(&state), arg);
            });
        if (flags & GBENCH_PROCESS_CPU) {
            b->MeasureProcessCPUTime();
        }
        if (flags & GBENCH_MANUAL_TIME) {
            b->UseManualTime();
        } else if (flags & GBENCH_REAL_TIME) {
            b->UseRealTime();
        }
        return 0;
    });
}

int gbench_add_context(const char *key, const char *value)
{
    return guarded(-1, [&] {
        benchmark::AddCustomContext(key, value);
        return 0;
    });
}

int64_t gbench_run(gbench_report_fn *report, void *arg)
{
    return guarded<int64_t>(-1, [&] {
        std::unique_ptr<benchmark::BenchmarkReporter> display, file;
        if (report != nullptr) {
            display = std::make_unique<CallbackReporter>(report, arg);
        }
        // The library takes a reporter for its file only where it was told of a file.
        if (!out_file.value.empty() && out_format.value == "json") {
            file = std::make_unique<PlainJson>();
        }
        return static_cast<int64_t>(benchmark::RunSpecifiedBenchmarks(display.get(), file.get()));
    });
}

void gbench_shutdown(void)
{
    guarded(-1, [] {
        benchmark::Shutdown();
        return 0;
    });
}

int gbench_keep_running(gbench_state *state)
{
    return guarded(0, [&] { return unwrap(state)->KeepRunning() ? 1 : 0; });
}

int gbench_keep_running_batch(gbench_state *state, int64_t n)
{
    return guarded(0, [&] { return unwrap(state)->KeepRunningBatch(n) ? 1 : 0; });
}

int64_t gbench_max_iterations(const gbench_state *state)
{
    return unwrap(state)->max_iterations;
}

int64_t gbench_iterations(const gbench_state *state)
{
    return unwrap(state)->iterations();
}

void gbench_pause_timing(gbench_state *state)
{
    guarded(-1, [&] {
        unwrap(state)->PauseTiming();
        return 0;
    });
}

void gbench_resume_timing(gbench_state *state)
{
    guarded(-1, [&] {
        unwrap(state)->ResumeTiming();
        return 0;
    });
}

void gbench_set_iteration_time(gbench_state *state, double seconds)
{
    unwrap(state)->SetIterationTime(seconds);
}

int gbench_set_counter(gbench_state *state, const char *name, double value, unsigned flags)
{
    using benchmark::Counter;
    static const struct {
        unsigned flag;
        Counter::Flags own;
    } map[] = {{GBENCH_RATE, Counter::kIsRate},
               {GBENCH_PER_ITERATION, Counter::kIsIterationInvariant},
               {GBENCH_AVERAGE, Counter::kAvgIterations},
               {GBENCH_INVERT, Counter::kInvert}};
    unsigned own = 0;
    for (const auto &entry : map) {
        own |= flags & entry.flag ? static_cast<unsigned>(entry.own) : 0u;
    }
    return guarded(-1, [&] {
        unwrap(state)->counters[name] = Counter(value, static_cast<Counter::Flags>(own));
        return 0;
    });
}

int gbench_set_label(gbench_state *state, const char *label)
{
    return guarded(-1, [&] {
        unwrap(state)->SetLabel(label);
        return 0;
    });
}

void gbench_skip_with_error(gbench_state *state, const char *message)
{
    guarded(-1, [&] {
        unwrap(state)->SkipWithError(message);
        return 0;
    });
}
