<?php

// To standard error, where the container's log is.
return [
    'default' => 'stderr',
    'channels' => [
        'stderr' => [
            'driver' => 'monolog',
            'handler' => Monolog\Handler\StreamHandler::class,
            'with' => ['stream' => 'php://stderr'],
            'formatter' => Monolog\Formatter\LineFormatter::class, // one line each: no stack traces
        ],
        'emergency' => ['path' => 'php://stderr'],
    ],
];
