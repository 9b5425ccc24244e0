<?php

namespace Database\Seeders;

use App\Models\Sample;
use Illuminate\Database\Seeder;

/** Samples to show around; run twice it adds nothing. */
class DemoSeeder extends Seeder
{
    public function run(): void
    {
        for ($i = 1; $i <= 25; $i++) {
            Sample::unguarded(fn () => Sample::updateOrCreate(['code' => sprintf('DEMO-%03d', $i)], [
                'patient' => "Иванова Анна № $i",
                'material' => ['кровь', 'моча', 'слюна'][$i % 3],
                'taken_on' => now()->subDays($i)->toDateString(),
                'value' => $i * 1.125,
                'demo' => true,
            ]));
        }
    }
}
