<?php

// Debian's packages bring a loader for the framework; the application's own classes follow PSR-4.
require '/usr/share/php/Illuminate/autoload.php';

spl_autoload_register(function (string $class): void {
    foreach (['App\\' => 'src/', 'Database\\Seeders\\' => 'database/seeders/'] as $prefix => $folder) {
        if (str_starts_with($class, $prefix)) {
            $file = dirname(__DIR__).'/'.$folder.str_replace('\\', '/', substr($class, strlen($prefix))).'.php';
            if (is_file($file)) {
                require $file;
            }
        }
    }
});
