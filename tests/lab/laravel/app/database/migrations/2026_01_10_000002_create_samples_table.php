<?php

use Illuminate\Database\Migrations\Migration;
use Illuminate\Database\Schema\Blueprint;
use Illuminate\Support\Facades\Schema;

return new class extends Migration
{
    public function up(): void
    {
        Schema::create('samples', function (Blueprint $table): void {
            $table->id();
            $table->string('code', 64)->unique();
            $table->string('patient');
            $table->string('material', 32)->index();
            $table->date('taken_on');
            $table->decimal('value', 12, 3)->nullable();
            $table->text('note')->nullable();
            $table->boolean('demo')->default(false);
            $table->timestamps();
        });
    }

    public function down(): void
    {
        Schema::dropIfExists('samples');
    }
};
