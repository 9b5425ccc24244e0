<?php

namespace App\Console;

use App\Models\User;
use Illuminate\Console\Command;
use Illuminate\Support\Facades\Hash;

class OwnerPassword extends Command
{
    protected $signature = 'owner:password {login} {--create : make the user where there is none}';

    protected $description = "Sets the owner's password, read from standard input";

    public function handle(): int
    {
        // All of the input is the password, but for one newline at its end.
        $password = preg_replace('/\n\z/D', '', stream_get_contents(STDIN), 1);
        if ($password === '') {
            $this->error('No password on standard input.');

            return self::FAILURE;
        }
        $login = $this->argument('login');
        $user = User::where('email', $login)->first();
        if ($user === null && ! $this->option('create')) {
            $this->error('No such user.');

            return self::FAILURE;
        }
        $user ??= new User(['name' => 'Owner', 'email' => $login]);
        $user->forceFill(['password' => Hash::make($password), 'is_owner' => true])->save();
        $this->info($user->wasRecentlyCreated ? 'Created.' : 'Changed.');

        return self::SUCCESS;
    }
}
