<?php

use Illuminate\Database\Migrations\Migration;
use Illuminate\Database\Schema\Blueprint;
use Illuminate\Support\Facades\DB;
use Illuminate\Support\Facades\Schema;

/** Changes structure and data, then fails: MariaDB keeps what was done, and only a dump brings it back. */
return new class extends Migration
{
    public $withinTransaction = false; // PostgreSQL would undo it all by itself

    public function up(): void
    {
        Schema::create('half_way', fn (Blueprint $table) => $table->id());
        Schema::table('samples', fn (Blueprint $table) => $table->string('half_way')->nullable());
        DB::table('samples')->update(['patient' => 'half way']);
        throw new RuntimeException('This migration always fails.');
    }
};
