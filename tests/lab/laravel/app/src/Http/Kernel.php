<?php

namespace App\Http;

use Illuminate\Foundation\Http\Kernel as HttpKernel;
use Illuminate\Foundation\Http\Middleware\PreventRequestsDuringMaintenance;
use Illuminate\Foundation\Http\Middleware\ValidatePostSize;

class Kernel extends HttpKernel
{
    // Nothing that trims or empties input: a password is taken as it was typed.
    protected $middleware = [PreventRequestsDuringMaintenance::class, ValidatePostSize::class];
}
