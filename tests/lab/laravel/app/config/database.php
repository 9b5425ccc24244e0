<?php

// Both engines of the fleet, told apart by DB_CONNECTION alone.
$common = [
    'host' => env('DB_HOST', '127.0.0.1'),
    'database' => env('DB_DATABASE', 'alfa'),
    'username' => env('DB_USERNAME', 'alfa'),
    'password' => env('DB_PASSWORD', ''),
    'prefix' => '',
    'options' => [PDO::ATTR_TIMEOUT => 5],
];

return [
    'default' => env('DB_CONNECTION', 'mysql'),
    'migrations' => 'migrations',
    'connections' => [
        'mysql' => $common + [
            'driver' => 'mysql',
            'port' => env('DB_PORT', '3306'),
            'charset' => 'utf8mb4',
            'collation' => 'utf8mb4_unicode_ci',
            'strict' => true,
        ],
        'pgsql' => $common + [
            'driver' => 'pgsql',
            'port' => env('DB_PORT', '5432'),
            'charset' => 'utf8',
            'search_path' => 'public',
            'sslmode' => 'prefer',
        ],
    ],
];
