<?php

use App\Models\Sample;
use App\Models\User;
use Illuminate\Http\Request;
use Illuminate\Support\Facades\DB;
use Illuminate\Support\Facades\Hash;
use Illuminate\Support\Facades\Route;
use Illuminate\Support\Str;

Route::get('/', fn () => view('welcome'));

Route::post('/login', function (Request $request) {
    $user = User::where('email', (string) $request->input('login'))->first();
    if ($user === null || ! Hash::check((string) $request->input('password'), $user->password)) {
        return response()->json(['message' => 'Wrong login or password.'], 401);
    }

    return response()->json(['login' => $user->email]);
});

// 201 is said only once the row is committed: what a client was told is there must be there.
Route::post('/samples', function (Request $request) {
    $sample = DB::transaction(fn () => Sample::create([
        'code' => (string) $request->input('code', Str::uuid()),
        'patient' => (string) $request->input('patient', 'Anonymous'),
        'material' => (string) $request->input('material', 'blood'),
        'taken_on' => now()->toDateString(),
        'value' => $request->input('value'),
        'note' => $request->input('note'),
    ]));

    return response()->json(['id' => $sample->id, 'code' => $sample->code], 201);
});

Route::get('/samples/count', fn () => response()->json(['count' => Sample::count()]));
