<?php

namespace App\Models;

use Illuminate\Database\Eloquent\Model;

class Sample extends Model
{
    protected $fillable = ['code', 'patient', 'material', 'taken_on', 'value', 'note'];

    protected $casts = ['taken_on' => 'date', 'value' => 'decimal:3'];
}
