// Independent pieces of work on a few threads. Who does which piece is not fixed, so pieces must not
// share what they write. No exception may leave what C calls.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <thread>
#include <vector>

// Calls work(piece, worker) for every piece; worker < the number of threads. What a thread throws is
// thrown again here, when all have ended; where there are no more threads, fewer do the work.
template <typename Work>
static void run_pieces(int64_t pieces, int64_t threads, Work work) {
    std::atomic<int64_t> next{0};
    std::atomic<bool> failed{false};
    std::exception_ptr failure;
    auto loop = [&](int64_t worker) {
        try {
            for (int64_t piece; !failed && (piece = next.fetch_add(1)) < pieces;)
                work(piece, worker);
        } catch (...) {
            if (!failed.exchange(true)) failure = std::current_exception();
        }
    };
    std::vector<std::thread> others;
    try {
        for (int64_t worker = 1; worker < threads && worker < pieces; worker++)
            others.emplace_back(loop, worker);
    } catch (const std::exception&) {
        // those that there are do it all
    }
    loop(0);
    for (auto& other : others) other.join();
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
