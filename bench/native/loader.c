/* A closed-loop HTTP loader: N keep-alive connections, each runs flows of one or more requests, one after another.
 *
 *   loader PORT SCRIPT [connections=32] [seconds=2] [warm=0.3] [first=1] [flows=0] [stall=20] [picks=FILE]
 *
 * SCRIPT holds steps: "STEP status template_len marker_len capture_len\n" + the three byte strings + "\n".
 * In a template byte 1 stands for the flow's own 12-digit id, byte 2 for the next line of `picks`, byte 3 for what the
 * last `capture` found (the text between that prefix and the next quote). Bytes 2 and 3 may stand in the head only:
 * their length varies and Content-Length is written by whoever made the template. Byte 4 stands for the last three
 * digits of the flow's id, to spread flows over a thousand rows. Status 0 accepts any 2xx.
 *
 * The rate counts flows that end inside the window (after `warm`, for `seconds`); flows under way at its end are
 * finished, so that what the server acknowledged is exactly what `all_flows` says. `flows=N` stops after N flows.
 * A wrong status, a missing marker or a lost connection is an error; 100 of them end the run. When nothing at all was
 * answered for `stall` seconds the run ends with "stalled": true and exit status 3. One JSON object is printed.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MAX_STEPS = 16, MAX_CONNECTIONS = 1024, BUFFER = 1 << 16, CAPTURE = 256, MAX_ERRORS = 100 };

struct step { int status; size_t length, marker_length, capture_length; char *template, *marker, *capture; };
struct connection {
    int fd, step;
    bool waiting;
    uint64_t id, sent_ns, flow_ns, answered;
    size_t received, captured_length;
    char captured[CAPTURE], buffer[BUFFER];
};

static struct step steps[MAX_STEPS];
static struct connection *connections;
static int step_count, connection_count = 32, epoll_fd, waiting;
static char **picks;
static size_t pick_count, pick_next;
static struct sockaddr_in server;
static uint64_t next_id = 1, max_flows, started_flows, start_ns, window_ns, end_ns, last_answer_ns;
static uint64_t window_flows, window_requests, all_flows, all_requests, errors, longest_ns;
static uint32_t *latency_us;
static size_t latency_count, latency_room;
static char first_error[512];

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void die(const char *what) {
    fprintf(stderr, "loader: %s: %s\n", what, strerror(errno));
    exit(4);
}

static void *need(void *memory) {
    if (!memory) die("memory");
    return memory;
}

static char *take(FILE *file, size_t length) {
    char *text = need(calloc(length + 1, 1));
    if (length && fread(text, 1, length, file) != length) die("script is cut short");
    return text;
}

static void read_script(const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file) die(path);
    struct step s;
    while (fscanf(file, "STEP %d %zu %zu %zu", &s.status, &s.length, &s.marker_length, &s.capture_length) == 4) {
        fgetc(file);
        s.template = take(file, s.length);
        s.marker = take(file, s.marker_length);
        s.capture = take(file, s.capture_length);
        fgetc(file);
        if (step_count == MAX_STEPS) die("too many steps");
        steps[step_count++] = s;
    }
    fclose(file);
    if (!step_count) die("script has no steps");
}

static void read_picks(const char *path) {
    FILE *file = fopen(path, "r");
    if (!file) die(path);
    char *line = NULL;
    size_t room = 0;
    ssize_t length;
    while ((length = getline(&line, &room, file)) > 0) {
        line[strcspn(line, "\r\n")] = 0;
        picks = need(realloc(picks, (pick_count + 1) * sizeof *picks));
        picks[pick_count++] = need(strdup(line));
    }
    free(line);
    fclose(file);
    if (!pick_count) die("picks are empty");
}

static void dial(struct connection *c) {
    int one = 1;
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&server, sizeof server)) die("connect");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &event)) die("epoll_ctl");
    c->received = 0;
}

static void redial(struct connection *c) {
    close(c->fd);
    dial(c);
}

static void fail(struct connection *c, const char *why) {
    if (!errors++) {
        size_t length = (size_t)snprintf(first_error, 160, "step %d: %s: ", c->step, why);
        for (size_t i = 0; i < c->received && length < sizeof first_error - 1; i++) {
            unsigned char ch = (unsigned char)c->buffer[i];
            first_error[length++] = ch < 32 || ch > 126 || ch == '"' || ch == '\\' ? ' ' : (char)ch;
        }
    }
}

static void send_step(struct connection *c) {
    static char out[BUFFER];
    size_t n = 0;
    const struct step *s = &steps[c->step];
    for (size_t i = 0; i < s->length; i++) {
        if (n + CAPTURE > sizeof out) die("request too large");
        char ch = s->template[i];
        if (ch == 1) {
            n += (size_t)sprintf(out + n, "%012llu", (unsigned long long)c->id);
        } else if (ch == 4) {
            n += (size_t)sprintf(out + n, "%03llu", (unsigned long long)(c->id % 1000));
        } else if (ch == 2) {
            if (!pick_count) die("the script wants picks");
            n += (size_t)snprintf(out + n, CAPTURE, "%s", picks[pick_next++ % pick_count]);
        } else if (ch == 3) {
            memcpy(out + n, c->captured, c->captured_length);
            n += c->captured_length;
        } else {
            out[n++] = ch;
        }
    }
    c->sent_ns = now_ns();
    if (send(c->fd, out, n, MSG_NOSIGNAL) != (ssize_t)n) {
        fail(c, "send failed");
        redial(c);
        if (send(c->fd, out, n, MSG_NOSIGNAL) != (ssize_t)n) die("send");
    }
    if (!c->waiting) waiting++;
    c->waiting = true;
}

static void start_flow(struct connection *c) {
    if (now_ns() >= end_ns || (max_flows && started_flows >= max_flows) || errors >= MAX_ERRORS) return;
    started_flows++;
    c->step = 0;
    c->id = next_id++;
    c->captured_length = 0;
    send_step(c);
    c->flow_ns = c->sent_ns;
}

static void remember(uint64_t ns) {
    if (latency_count == latency_room) {
        latency_room = latency_room ? latency_room * 2 : 1 << 16;
        latency_us = need(realloc(latency_us, latency_room * sizeof *latency_us));
    }
    latency_us[latency_count++] = (uint32_t)(ns / 1000);
}

static char *header(char *head, const char *name) {
    char *found = strcasestr(head, name);
    return found ? found + strlen(name) : NULL;
}

/* One whole answer lies in the buffer: judge it and go on. */
static void answered(struct connection *c, char *body, size_t length, int status, bool closing) {
    const struct step *s = &steps[c->step];
    uint64_t now = now_ns();
    bool in_window = now >= window_ns && now < end_ns;
    c->waiting = false;
    waiting--;
    c->answered++;
    all_requests++;
    last_answer_ns = now;
    if (now - c->sent_ns > longest_ns) longest_ns = now - c->sent_ns;
    if (in_window) {
        window_requests++;
        remember(now - c->sent_ns);
    }
    bool right = s->status ? status == s->status : status >= 200 && status < 300;
    char *found = s->capture_length ? memmem(body, length, s->capture, s->capture_length) : NULL;
    if (!right) {
        fail(c, "wrong status");
    } else if (s->marker_length && !memmem(body, length, s->marker, s->marker_length)) {
        right = false;
        fail(c, "marker missing");
    } else if (s->capture_length) {
        char *value = found ? found + s->capture_length : NULL;
        char *quote = value ? memchr(value, '"', length - (size_t)(value - body)) : NULL;
        right = quote && (size_t)(quote - value) < CAPTURE;
        if (right) {
            c->captured_length = (size_t)(quote - value);
            memcpy(c->captured, value, c->captured_length);
        } else {
            fail(c, "nothing to capture");
        }
    }
    c->received = 0;
    if (closing) redial(c);
    if (right && c->step + 1 < step_count) {
        c->step++;
        send_step(c);
        return;
    }
    if (right) {
        all_flows++;
        if (in_window) window_flows++;
    }
    start_flow(c);
}

static void readable(struct connection *c) {
    ssize_t got = recv(c->fd, c->buffer + c->received, BUFFER - 1 - c->received, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) {
        if (c->waiting) {
            fail(c, "connection lost");
            c->waiting = false;
            waiting--;
            redial(c);
            start_flow(c);
        } else {
            redial(c);
        }
        return;
    }
    c->received += (size_t)got;
    c->buffer[c->received] = 0;
    char *end = memmem(c->buffer, c->received, "\r\n\r\n", 4);
    if (!end) {
        if (c->received == BUFFER - 1) die("answer head too large");
        return;
    }
    *end = 0;
    int status = c->received > 12 ? atoi(c->buffer + 9) : 0;
    char *length_text = header(c->buffer, "\ncontent-length:");
    size_t length = length_text ? strtoul(length_text, NULL, 10) : 0;
    char *closes = header(c->buffer, "\nconnection:");
    bool closing = closes && !strncasecmp(closes + strspn(closes, " "), "close", 5);
    *end = '\r';
    if (!length_text && status != 204 && status != 304) die("answer without Content-Length");
    char *body = end + 4;
    size_t present = c->received - (size_t)(body - c->buffer);
    if (length >= BUFFER - 1 - (size_t)(body - c->buffer)) die("answer too large");
    if (present >= length) answered(c, body, length, status, closing);
}

static int by_value(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static double percentile_ms(double share) {
    return latency_count ? latency_us[(size_t)((double)(latency_count - 1) * share)] / 1000.0 : 0;
}

static void report(bool stalled) {
    uint64_t now = now_ns(), until = now < end_ns ? now : end_ns;
    double seconds = until > window_ns ? (double)(until - window_ns) / 1e9 : 0;
    int starved = 0, stuck = 0;
    for (int i = 0; i < connection_count; i++) {
        struct connection *c = &connections[i];
        if (!c->answered) starved++;
        if (!c->waiting) continue;
        stuck++;
        if (now - c->sent_ns > longest_ns) longest_ns = now - c->sent_ns;
    }
    qsort(latency_us, latency_count, sizeof *latency_us, by_value);
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    double cpu = (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
                 (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
    printf("{\"connections\": %d, \"seconds\": %.4f, \"elapsed\": %.4f, \"flows\": %llu, \"requests\": %llu, "
           "\"rate\": %.2f, \"p50_ms\": %.3f, \"p99_ms\": %.3f, \"longest_ms\": %.3f, \"all_flows\": %llu, "
           "\"all_requests\": %llu, \"errors\": %llu, \"first_error\": \"%s\", \"stalled\": %s, \"waiting\": %d, "
           "\"starved\": %d, \"next_id\": %llu, \"cpu_s\": %.4f}\n",
           connection_count, seconds, (double)(now - start_ns) / 1e9, (unsigned long long)window_flows,
           (unsigned long long)window_requests, seconds > 0 ? (double)window_flows / seconds : 0, percentile_ms(0.5),
           percentile_ms(0.99), (double)longest_ns / 1e6, (unsigned long long)all_flows,
           (unsigned long long)all_requests, (unsigned long long)errors, first_error, stalled ? "true" : "false",
           stuck, starved, (unsigned long long)next_id, cpu);
    exit(stalled ? 3 : errors ? 2 : 0);
}

int main(int argc, char **argv) {
    if (argc < 3) {
        fprintf(stderr, "usage: loader PORT SCRIPT [key=value…]\n");
        return 4;
    }
    double seconds = 2, warm = 0.3, stall = 20;
    for (int i = 3; i < argc; i++) {
        char *value = strchr(argv[i], '=');
        if (!value) die(argv[i]);
        *value++ = 0;
        if (!strcmp(argv[i], "connections")) connection_count = atoi(value);
        else if (!strcmp(argv[i], "seconds")) seconds = atof(value);
        else if (!strcmp(argv[i], "warm")) warm = atof(value);
        else if (!strcmp(argv[i], "first")) next_id = strtoull(value, NULL, 10);
        else if (!strcmp(argv[i], "flows")) max_flows = strtoull(value, NULL, 10);
        else if (!strcmp(argv[i], "stall")) stall = atof(value);
        else if (!strcmp(argv[i], "picks")) read_picks(value);
        else die(argv[i]);
    }
    if (connection_count < 1 || connection_count > MAX_CONNECTIONS) die("connections");
    read_script(argv[2]);
    server.sin_family = AF_INET;
    server.sin_port = htons((uint16_t)atoi(argv[1]));
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    epoll_fd = epoll_create1(0);
    connections = need(calloc((size_t)connection_count, sizeof *connections));
    for (int i = 0; i < connection_count; i++) dial(&connections[i]);

    start_ns = last_answer_ns = now_ns();
    window_ns = start_ns + (uint64_t)(warm * 1e9);
    end_ns = window_ns + (uint64_t)(seconds * 1e9);
    uint64_t stall_ns = (uint64_t)(stall * 1e9);
    for (int i = 0; i < connection_count; i++) start_flow(&connections[i]);
    struct epoll_event events[256];
    while (waiting) {
        int ready = epoll_wait(epoll_fd, events, 256, 100);
        if (ready < 0 && errno != EINTR) die("epoll_wait");
        for (int i = 0; i < ready; i++) readable(events[i].data.ptr);
        if (waiting && now_ns() - last_answer_ns > stall_ns) report(true);
    }
    report(false);
}
