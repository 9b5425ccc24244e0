<?php

use Illuminate\Support\Facades\Route;

Route::get('/up', fn () => response('down', 500));
