// gbench.cc - the C shim over Google Benchmark (written for 1.7.1): see gbench.h.
#include "gbench.h"

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

using Run = benchmark::BenchmarkReporter::Run;

struct gbench_case {
    std::string name;
    int threads = 1;
    std::vector<Run> rounds;
    std::vector<Run> aggregates;
};

namespace
{

// Runs the body and gives its value, or `failure` where it throws: nothing may unwind into C.
template <typename T, typename Body> T guarded(T failure, Body body)
{
    try {
        return body();
    } catch (...) {
        return failure;
    }
}

// Takes the record of the only run and prints nothing.
class Collector : public benchmark::BenchmarkReporter
{
  public:
    bool ReportContext(const Context &) override
    {
        return true;
    }

    void ReportRuns(const std::vector<Run> &reported) override
    {
        runs.insert(runs.end(), reported.begin(), reported.end());
    }

    std::vector<Run> runs;
};

// What a round asks for and how it went.
struct Round {
    gbench_call *call;
    void *arg;
    int64_t calls;
    double cpu;
    char *error;
    size_t size;

    void operator()(benchmark::State &state)
    {
        while (state.KeepRunningBatch(calls)) {
            double seconds = 0.0;
            if (call(arg, calls, &seconds, &cpu, error, size) != 0) {
                state.SkipWithError(error);
                break;
            }
            state.SetIterationTime(seconds);
        }
    }
};

// A record of the case that no run of the library made.
Run blank(const gbench_case &c)
{
    Run run;
    run.run_name.function_name = c.name;
    run.threads = c.threads;
    run.time_unit = benchmark::kNanosecond;
    run.statistics = nullptr;
    run.repetition_index = 0;
    run.repetitions = 1;
    return run;
}

// The library's record of one round, made to say what it can't know: the case's plain name (how two
// reports are matched), which round it was, and threads and CPU time of the process that worked.
Run adapted(const gbench_case &c, const Run &round, double cpu)
{
    Run run = round;
    run.run_name = blank(c).run_name;
    run.threads = c.threads;
    run.statistics = nullptr;
    run.repetition_index = static_cast<int64_t>(c.rounds.size());
    run.cpu_accumulated_time = cpu;
    return run;
}

std::unique_ptr<benchmark::BenchmarkReporter> reporter(gbench_format format)
{
    if (format == GBENCH_JSON) {
        return std::make_unique<benchmark::JSONReporter>();
    }
    if (format == GBENCH_CONSOLE) {
        return std::make_unique<benchmark::ConsoleReporter>(benchmark::ConsoleReporter::OO_None);
    }
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
    return std::make_unique<benchmark::CSVReporter>();
#pragma GCC diagnostic pop
}

// The rows of a case as a reporter takes them.
std::vector<Run> rows(const gbench_case &c, int index, benchmark::TimeUnit unit)
{
    std::vector<Run> all = c.rounds;
    all.insert(all.end(), c.aggregates.begin(), c.aggregates.end());
    for (Run &run : all) {
        run.family_index = index;
        run.per_family_instance_index = 0;
        run.repetitions = static_cast<int64_t>(c.rounds.size());
        run.time_unit = unit;
    }
    return all;
}

} // namespace

int gbench_initialize(int *argc, char **argv)
{
    return guarded(-1, [&] {
        benchmark::Initialize(argc, argv);
        return 0;
    });
}

void gbench_shutdown(void)
{
    guarded(-1, [] {
        benchmark::ClearRegisteredBenchmarks();
        benchmark::Shutdown();
        return 0;
    });
}

gbench_case *gbench_case_create(const char *name, int threads)
{
    return guarded<gbench_case *>(nullptr, [&] {
        auto c = std::make_unique<gbench_case>();
        c->name = name;
        c->threads = threads;
        return c.release();
    });
}

void gbench_case_destroy(gbench_case *c)
{
    delete c;
}

int gbench_round(gbench_case *c, int64_t calls, gbench_call *call, void *arg, int keep,
                 double *seconds, char *error, size_t size)
{
    return guarded(-1, [&] {
        Round round = {call, arg, calls, 0.0, error, size};
        Collector collector;
        std::snprintf(error, size, "Google Benchmark did not run it");
        benchmark::ClearRegisteredBenchmarks();
        // A given number of iterations: the library calls once and searches for nothing.
        benchmark::RegisterBenchmark(c->name.c_str(),
                                     [&round](benchmark::State &state) { round(state); })
            ->UseManualTime()
            ->Iterations(calls)
            ->Unit(benchmark::kNanosecond);
        benchmark::RunSpecifiedBenchmarks(&collector, nullptr, ".");
        if (collector.runs.size() != 1 || collector.runs[0].error_occurred) {
            return -1;
        }
        const Run run = adapted(*c, collector.runs[0], round.cpu);
        *seconds = run.GetAdjustedRealTime() / benchmark::GetTimeUnitMultiplier(run.time_unit);
        if (keep) {
            c->rounds.push_back(run);
        }
        error[0] = '\0';
        return 0;
    });
}

int gbench_fail(gbench_case *c, const char *message)
{
    return guarded(-1, [&] {
        Run run = blank(*c);
        run.error_occurred = true;
        run.error_message = message;
        run.iterations = 0;
        c->aggregates.clear();
        c->rounds.assign(1, run);
        return 0;
    });
}

int gbench_aggregate(gbench_case *c, const char *statistic, double real_seconds, double cpu_seconds)
{
    return guarded(-1, [&] {
        Run run = blank(*c);
        run.run_type = Run::RT_Aggregate;
        run.aggregate_name = statistic;
        run.repetition_index = Run::no_repetition_index;
        // The library counts rounds here, and divides by them.
        run.iterations = static_cast<benchmark::IterationCount>(c->rounds.size());
        run.real_accumulated_time = real_seconds * static_cast<double>(run.iterations);
        run.cpu_accumulated_time = cpu_seconds * static_cast<double>(run.iterations);
        c->aggregates.push_back(run);
        return 0;
    });
}

int gbench_rounds(const gbench_case *c)
{
    return static_cast<int>(c->rounds.size());
}

double gbench_cpu_seconds(const gbench_case *c, int i)
{
    const Run &run = c->rounds[static_cast<std::size_t>(i)];
    return run.GetAdjustedCPUTime() / benchmark::GetTimeUnitMultiplier(run.time_unit);
}

char *gbench_format_cases(enum gbench_format format, gbench_case *const *cases, int count)
{
    return guarded<char *>(nullptr, [&]() -> char * {
        std::ostringstream out, err;
        auto printer = reporter(format);
        printer->SetOutputStream(&out);
        printer->SetErrorStream(&err);
        const benchmark::TimeUnit unit =
            format == GBENCH_JSON ? benchmark::kNanosecond : benchmark::GetDefaultTimeUnit();
        benchmark::BenchmarkReporter::Context context;
        context.name_field_width = 10;
        for (int i = 0; i < count; i++) {
            context.name_field_width =
                std::max(context.name_field_width, cases[i]->name.size() + 7);
        }
        if (printer->ReportContext(context)) {
            for (int i = 0; i < count; i++) {
                const std::vector<Run> runs = rows(*cases[i], i, unit);
                if (!runs.empty()) {
                    printer->ReportRuns(runs);
                }
            }
            printer->Finalize();
        }
        return strdup(out.str().c_str());
    });
}
