// Independent pieces of work on a few threads. Who does which piece is not fixed, so pieces must not
// share what they write. No exception may leave what C calls.
#pragma once

#include <dlfcn.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <exception>
#include <thread>
#include <vector>

// that loaded this code
static const pid_t kProcess = getpid();

// Calls run(argument) on several threads, like `#pragma omp parallel`, and returns when all have.
using Team = void (*)(void (*run)(void*), void* argument, unsigned threads, unsigned flags);

// The threads of the OpenMP that PyTorch has loaded, by an entry of GNU's that Intel's and LLVM's
// have on Linux too; or null. They exist already and wait on their cores for the next work; others
// would have to be started, and to share the cores with them.
static Team find_team() {
    static const Team team = reinterpret_cast<Team>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
    // what was forked has no threads, but OpenMP does not know
    return getpid() == kProcess ? team : nullptr;
}

// run() on so many threads, or fewer where there are no more
template <typename Run>
static void run_together(int64_t threads, Run& run) {
    if (const Team team = threads > 1 ? find_team() : nullptr) {
        const auto call = [](void* argument) { (*static_cast<Run*>(argument))(); };
        return team(call, &run, static_cast<unsigned>(threads), 0);
    }
    std::vector<std::thread> others;
    try {
        for (int64_t i = 1; i < threads; i++) others.emplace_back([&] { run(); });
    } catch (const std::exception&) {
        // those that there are do it all
    }
    run();
    for (auto& other : others) other.join();
}

// Calls work(piece, worker) for every piece; worker < the number of threads. What a thread throws is
// thrown again here, when all have ended.
template <typename Work>
static void run_pieces(int64_t pieces, int64_t threads, Work work) {
    std::atomic<int64_t> next{0}, workers{0};
    std::atomic<bool> failed{false};
    std::exception_ptr failure;
    auto loop = [&] {
        const int64_t worker = workers.fetch_add(1);
        try {
            for (int64_t piece; !failed && (piece = next.fetch_add(1)) < pieces;)
                work(piece, worker);
        } catch (...) {
            if (!failed.exchange(true)) failure = std::current_exception();
        }
    };
    run_together(threads < pieces ? threads : pieces, loop);
    if (failure) std::rethrow_exception(failure);
}

// what an exported function returns: 0, or 1 where memory or threads ran out
template <typename Work>
static int guarded(Work work) {
    try {
        work();
        return 0;
    } catch (const std::exception&) {
        return 1;
    }
}
