// Copies columns out of scattered records; gather.py says what for.

#include <cstdint>
#include <cstring>

enum {
    TILE = 128,         // entries that are in the first-level cache while their columns are copied
    AHEAD = 12,         // ranges whose records are asked for before they are needed
    LINE = 64,          // bytes that come from memory together
    MOST_ASKED = 1024,  // bytes of a range that are asked for; the hardware goes on by itself
};

struct column {
    int64_t offset;  // of the value in a record
    int64_t size;    // of the value, in bytes
    int64_t widens;  // whether an int32 becomes an int64
};

static int64_t out_size(column c) { return c.widens ? 8 : c.size; }

static void ask_for(const char *record, int64_t bytes) {
    for (int64_t i = 0; i < bytes && i < MOST_ASKED; i += LINE) __builtin_prefetch(record + i);
    __builtin_prefetch(record + bytes - 1);
}

static void copy_column(const char *const *records, int64_t count, column c, char *out) {
    if (c.widens) {
        for (int64_t i = 0; i < count; i++) {
            int32_t narrow;
            memcpy(&narrow, records[i] + c.offset, 4);
            int64_t wide = narrow;
            memcpy(out + 8 * i, &wide, 8);
        }
    } else if (c.size == 8) {
        for (int64_t i = 0; i < count; i++) memcpy(out + 8 * i, records[i] + c.offset, 8);
    } else if (c.size == 4) {
        for (int64_t i = 0; i < count; i++) memcpy(out + 4 * i, records[i] + c.offset, 4);
    } else {
        for (int64_t i = 0; i < count; i++)
            memcpy(out + c.size * i, records[i] + c.offset, c.size);
    }
}

// Copies the columns of some ranges of records, batch after batch.
//
//   records, stride   the first record, and the bytes from one to the next
//   begins            [R] first record of each range
//   lengths           [R] records of each range; null: one
//   bounds            [T + 1] first range of each batch, and R
//   columns           [K]
//   outs              [T, K] where the values of each batch go
extern "C" void gather(const char *records, int64_t stride, const int64_t *begins, const int64_t *lengths,
            const int64_t *bounds, int64_t num_batches, const column *columns,
            int64_t num_columns, char *const *outs) {
    const char *tile[TILE];
    for (int64_t t = 0; t < num_batches; t++, outs += num_columns) {
        int64_t filled = 0, done = 0;
        for (int64_t r = bounds[t]; r < bounds[t + 1]; r++) {
            if (r + AHEAD < bounds[num_batches]) {
                int64_t length = lengths ? lengths[r + AHEAD] : 1;
                if (length) ask_for(records + stride * begins[r + AHEAD], stride * length);
            }
            const char *record = records + stride * begins[r];
            for (int64_t left = lengths ? lengths[r] : 1; left; left--, record += stride) {
                tile[filled++] = record;
                if (filled == TILE) {
                    for (int64_t k = 0; k < num_columns; k++)
                        copy_column(tile, filled, columns[k],
                                    outs[k] + done * out_size(columns[k]));
                    done += filled;
                    filled = 0;
                }
            }
        }
        for (int64_t k = 0; k < num_columns; k++)
            copy_column(tile, filled, columns[k], outs[k] + done * out_size(columns[k]));
    }
}
