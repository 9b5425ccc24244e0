<?php

namespace App;

/** The framework asks composer.json for the namespace and the folder; without Composer both are said here. */
class Application extends \Illuminate\Foundation\Application
{
    protected $namespace = 'App\\';

    public function path($path = '')
    {
        return $this->joinPaths($this->basePath('src'), $path);
    }
}
