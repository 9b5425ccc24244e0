<?php

namespace Database\Seeders;

use App\Models\Sample;
use Illuminate\Database\Seeder;

/** Takes away what DemoSeeder brought, and nothing else. */
class DemoInverseSeeder extends Seeder
{
    public function run(): void
    {
        Sample::where('demo', true)->delete();
    }
}
