/* The floor: what a C program needs for the same statements on the same tables, committing every `group` requests.
 *
 *   floor DATABASE SCRIPT [group=1] [seconds=2] [warm=0] [first=0] [count=0] [bulk=0] [foreign_keys=1]
 *
 * SCRIPT (written by bench/shape.py) says which rows one request writes:
 *   "SLOT text|blob digits|hex|HEX|bytes|b32 random|ordered LENGTH POSITIONS\n" + template + "\n" + positions + "\n"
 *       a value made anew for each request: the template with other characters at these positions;
 *   "STMT SQL_LENGTH PARAMETERS\n" + sql + "\n", then a line per parameter:
 *       "I value" | "R value" | "N" | "T length\n"+bytes | "B length\n"+bytes | "C last step" (a counter) | "S slot".
 * Request n fills a counter with last + step * (n + 1) and each slot with a permutation of n, so nothing ever collides.
 *
 * `count=N` stops after N requests; `bulk=1` loads without any durability. One JSON object is printed.
 */
#define _GNU_SOURCE
#include <sqlite3.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

enum { MAX_SLOTS = 128, MAX_STATEMENTS = 64, MAX_PARAMETERS = 64 };

struct slot { bool blob, ordered; int base, lead, *positions; const char *alphabet; size_t length, count; char *bytes; uint64_t span, factor; };
struct parameter { char kind; int64_t number, step; double real; char *bytes; size_t length; };
struct statement { sqlite3_stmt *prepared; int count; struct parameter parameters[MAX_PARAMETERS]; };

static struct slot slots[MAX_SLOTS];
static struct statement statements[MAX_STATEMENTS];
static int slot_count, statement_count;
static sqlite3 *db;

static void die(const char *what) {
    fprintf(stderr, "floor: %s: %s\n", what, db ? sqlite3_errmsg(db) : "");
    exit(4);
}

static double seconds_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void run(const char *sql) {
    if (sqlite3_exec(db, sql, NULL, NULL, NULL) != SQLITE_OK) die(sql);
}

static char *take(FILE *file, size_t length) {
    char *text = calloc(length + 1, 1);
    if (!text || (length && fread(text, 1, length, file) != length)) die("script is cut short");
    return text;
}

/* The request number fills the leading positions; a factor without a common divisor makes it a permutation. */
static void read_slot(FILE *file) {
    struct slot *s = &slots[slot_count];
    char type[8], alphabet[8], order[8];
    if (slot_count++ == MAX_SLOTS) die("too many slots");
    if (fscanf(file, "%7s %7s %7s %zu %zu", type, alphabet, order, &s->length, &s->count) != 5) die("bad slot");
    fgetc(file);
    s->blob = !strcmp(type, "blob");
    s->ordered = !strcmp(order, "ordered");
    s->alphabet = !strcmp(alphabet, "HEX") ? "0123456789ABCDEF" : !strcmp(alphabet, "b32") ? "234567ABCDEFGHIJKLMNOPQRSTUVWXYZ" : "0123456789abcdef";
    s->base = !strcmp(alphabet, "digits") ? 10 : !strcmp(alphabet, "bytes") ? 256 : !strcmp(alphabet, "b32") ? 32 : 16;
    s->bytes = take(file, s->length);
    s->positions = calloc(s->count + 1, sizeof *s->positions);
    for (size_t i = 0; i < s->count; i++)
        if (fscanf(file, "%d", &s->positions[i]) != 1) die("bad positions");
    int most = s->base == 256 ? 7 : s->base == 32 ? 11 : 14;
    s->span = 1;
    for (s->lead = 0; s->lead < most && s->lead < (int)s->count; s->lead++) s->span *= (uint64_t)s->base;
    s->factor = s->span > 20 ? (uint64_t)((double)s->span * 0.6180339887498949) : 1;
    while (s->factor % 2 == 0 || s->factor % 5 == 0) s->factor++;
    if (s->ordered) s->factor = 1;
}

static void read_statement(FILE *file) {
    struct statement *s = &statements[statement_count];
    size_t length;
    if (statement_count++ == MAX_STATEMENTS) die("too many statements");
    if (fscanf(file, "%zu %d", &length, &s->count) != 2 || s->count > MAX_PARAMETERS) die("bad statement");
    fgetc(file);
    char *sql = take(file, length);
    if (sqlite3_prepare_v3(db, sql, (int)length, SQLITE_PREPARE_PERSISTENT, &s->prepared, NULL)) die(sql);
    for (int i = 0; i < s->count; i++) {
        struct parameter *p = &s->parameters[i];
        long long number = 0, step = 0;
        if (fscanf(file, " %c", &p->kind) != 1) die("bad parameter");
        int got = 1;
        if (p->kind == 'I' || p->kind == 'S') got = fscanf(file, "%lld", &number);
        else if (p->kind == 'R') got = fscanf(file, "%lf", &p->real);
        else if (p->kind == 'C') got = fscanf(file, "%lld %lld", &number, &step) - 1;
        else if (p->kind == 'T' || p->kind == 'B') {
            got = fscanf(file, "%zu", &p->length);
            fgetc(file);
            p->bytes = take(file, p->length);
        }
        if (got != 1) die("bad parameter");
        p->number = number;
        p->step = step;
        if (p->kind == 'S' && (number < 0 || number >= slot_count)) die("no such slot");
    }
    free(sql);
}

static void fill(struct slot *s, uint64_t n, uint64_t seed) {
    uint64_t value = (uint64_t)((unsigned __int128)n * s->factor % s->span);
    for (int i = s->lead - 1; i >= 0; i--) {
        int digit = (int)(value % (uint64_t)s->base);
        value /= (uint64_t)s->base;
        s->bytes[s->positions[i]] = s->base == 256 ? (char)digit : s->alphabet[digit];
    }
    for (size_t i = (size_t)s->lead; i < s->count; i++) {
        if ((i - (size_t)s->lead) % 8 == 0) { /* splitmix64 */
            seed += 0x9E3779B97F4A7C15u;
            value = (seed ^ (seed >> 30)) * 0xBF58476D1CE4E5B9u;
            value = (value ^ (value >> 27)) * 0x94D049BB133111EBu;
            value ^= value >> 31;
        }
        int digit = (int)(value & 0xFF);
        value >>= 8;
        s->bytes[s->positions[i]] = s->base == 256 ? (char)digit : s->alphabet[digit % s->base];
    }
}

static void request(uint64_t n) {
    for (int i = 0; i < slot_count; i++) fill(&slots[i], n, n * 131 + (uint64_t)i);
    for (int i = 0; i < statement_count; i++) {
        struct statement *s = &statements[i];
        for (int j = 0; j < s->count; j++) {
            const struct parameter *p = &s->parameters[j];
            const struct slot *v = p->kind == 'S' ? &slots[p->number] : NULL;
            int at = j + 1, length = (int)(v ? v->length : p->length);
            const char *bytes = v ? v->bytes : p->bytes;
            int result = SQLITE_OK;
            if (p->kind == 'I') result = sqlite3_bind_int64(s->prepared, at, p->number);
            else if (p->kind == 'C') result = sqlite3_bind_int64(s->prepared, at, p->number + p->step * (int64_t)(n + 1));
            else if (p->kind == 'R') result = sqlite3_bind_double(s->prepared, at, p->real);
            else if (p->kind == 'N') result = sqlite3_bind_null(s->prepared, at);
            else if (p->kind == 'B' || (v && v->blob)) result = sqlite3_bind_blob(s->prepared, at, bytes, length, SQLITE_STATIC);
            else result = sqlite3_bind_text(s->prepared, at, bytes, length, SQLITE_STATIC);
            if (result != SQLITE_OK) die("bind");
        }
        int result;
        while ((result = sqlite3_step(s->prepared)) == SQLITE_ROW) continue;
        if (result != SQLITE_DONE) die(sqlite3_sql(s->prepared));
        sqlite3_reset(s->prepared);
    }
}

int main(int argc, char **argv) {
    if (argc < 3) {
        fprintf(stderr, "usage: floor DATABASE SCRIPT [key=value…]\n");
        return 4;
    }
    double seconds = 2, warm = 0;
    uint64_t group = 1, first = 0, count = 0;
    int bulk = 0, foreign_keys = 1;
    for (int i = 3; i < argc; i++) {
        char *value = strchr(argv[i], '=');
        if (!value) die(argv[i]);
        *value++ = 0;
        if (!strcmp(argv[i], "group")) group = strtoull(value, NULL, 10);
        else if (!strcmp(argv[i], "seconds")) seconds = atof(value);
        else if (!strcmp(argv[i], "warm")) warm = atof(value);
        else if (!strcmp(argv[i], "first")) first = strtoull(value, NULL, 10);
        else if (!strcmp(argv[i], "count")) count = strtoull(value, NULL, 10);
        else if (!strcmp(argv[i], "bulk")) bulk = atoi(value);
        else if (!strcmp(argv[i], "foreign_keys")) foreign_keys = atoi(value);
        else die(argv[i]);
    }
    if (sqlite3_open_v2(argv[1], &db, SQLITE_OPEN_READWRITE, NULL)) die(argv[1]);
    if (bulk) {
        run("PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA cache_size=-1000000");
    } else {
        run("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA cache_size=-65536");
        run(foreign_keys ? "PRAGMA foreign_keys=ON" : "PRAGMA foreign_keys=OFF");
    }
    FILE *file = fopen(argv[2], "rb");
    if (!file) die(argv[2]);
    char word[8];
    while (fscanf(file, " %5s", word) == 1) {
        if (!strcmp(word, "SLOT")) read_slot(file);
        else if (!strcmp(word, "STMT")) read_statement(file);
        else die("unknown word in the script");
    }
    fclose(file);
    if (!statement_count) die("script has no statements");

    sqlite3_stmt *begin, *commit;
    if (sqlite3_prepare_v2(db, "BEGIN IMMEDIATE", -1, &begin, NULL)) die("BEGIN");
    if (sqlite3_prepare_v2(db, "COMMIT", -1, &commit, NULL)) die("COMMIT");
    uint64_t n = first, counted = 0, commits = 0;
    double start = seconds_now(), window = start + warm, end = window + seconds, now = start;
    while (count ? n - first < count : now < end) {
        if (sqlite3_step(begin) != SQLITE_DONE) die("BEGIN");
        sqlite3_reset(begin);
        uint64_t in_group = count && count - (n - first) < group ? count - (n - first) : group;
        for (uint64_t i = 0; i < in_group; i++) request(n++);
        if (sqlite3_step(commit) != SQLITE_DONE) die("COMMIT");
        sqlite3_reset(commit);
        commits++;
        now = seconds_now();
        if (now >= window && (count || now < end)) counted += in_group;
    }
    double took = (count || now < end ? now : end) - window;
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    double cpu = (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) + (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
    printf("{\"seconds\": %.4f, \"count\": %llu, \"rate\": %.2f, \"all\": %llu, \"commits\": %llu, \"next\": %llu, "
           "\"cpu_s\": %.4f, \"sqlite\": \"%s\"}\n", took, (unsigned long long)counted, took > 0 ? (double)counted / took : 0,
           (unsigned long long)(n - first), (unsigned long long)commits, (unsigned long long)n, cpu, sqlite3_libversion());
    for (int i = 0; i < statement_count; i++) sqlite3_finalize(statements[i].prepared);
    sqlite3_finalize(begin);
    sqlite3_finalize(commit);
    return sqlite3_close(db) == SQLITE_OK ? 0 : 4;
}
