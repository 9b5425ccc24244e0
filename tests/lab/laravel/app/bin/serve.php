<?php

/* Process 1 of the container: PHP's own web server heeds no SIGTERM there and leaves its workers behind.
   Told to stop, this lets every worker finish the request it is in, and ends what takes too long. */

$server = pcntl_fork();
if ($server === 0) {
    posix_setpgid(0, 0); // a group of its own: server and workers
    pcntl_exec(PHP_BINARY, ['-q', '-S', '0.0.0.0:80', '-t', 'public', 'bin/router.php']);
    exit(127);
}

$stop = function () use ($server): void {
    posix_kill(-$server, SIGINT);
    for ($i = 0; $i < 80 && posix_kill(-$server, 0); $i++) {
        while (pcntl_wait($status, WNOHANG) > 0);
        usleep(100000);
    }
    posix_kill(-$server, SIGKILL);
    exit(0);
};
pcntl_async_signals(true);
foreach ([SIGTERM, SIGINT, SIGQUIT] as $signal) {
    pcntl_signal($signal, $stop, false); // false: let it interrupt the wait below
}

do {
    $pid = pcntl_wait($status);
} while ($pid !== $server && ($pid !== -1 || pcntl_get_last_error() === PCNTL_EINTR));
exit(1); // the server ended by itself
